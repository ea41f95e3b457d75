"""Step programs of converted modules: rows out of step are as if each ran alone."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import settings

import tests.graph
from tests.graph.networks import NETWORKS, Case
from tests.graph.rows import Row
from tests.program.refusals import POSITIONS
from tests.program.rows import check_rows

EXAMPLES = settings().max_examples // 4
BIG = ("r3d_18", "r2plus1d_18", "resnet18_per_frame", "letters")  # seconds for a clip
REFUSED = {"causal_transformer": POSITIONS}


@cache
def twin(name: str) -> tuple[Any, Case]:
    """A converted network in double precision, and a longer clip than its example."""
    case = NETWORKS[name]().to(torch.float64)
    return case.convert(), case


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in BIG and n not in REFUSED])
def test_rows_out_of_step(name: str):
    net, case = twin(name)
    inputs = case.clips(case.frames + 3 * case.multiple, 3)
    forward = not case.clip_level
    program = check_rows(net, inputs, forward=False, fused=True)
    check_rows(net, inputs, 3 * program.chunk, seed=1, forward=False)


def rows() -> list[Any]:
    """All rows of the tables of rules: small modules of one operation each."""
    found = []
    for info in pkgutil.iter_modules([*tests.graph.__path__]):
        if info.name.startswith("test_rules_"):
            module = importlib.import_module(f"tests.graph.{info.name}")
            for table in vars(module).values():
                if isinstance(table, list):
                    found += [r.values[0] for r in table if isinstance(getattr(r, "values", [None])[0], Row)]
    return found
