"""One refusal does not hide another, and what follows from one is no refusal of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.convert import remedies
from tests.convert.cases import seeded
from tests.convert.faults import SEVERAL, Behind, Several

every_fault = pytest.mark.parametrize("case", SEVERAL.values(), ids=SEVERAL)


def refusals_of(case: Several, **options: Any) -> co.NotStreamable:
    with pytest.raises(co.NotStreamable) as caught:
        co.continual(seeded(lambda: Behind(case.body)), case.inputs, **{"windows": "stream", **options})
    return caught.value


@every_fault
def test_all_that_are_independent_are_found_and_nothing_else(case: Several):
    error: Any = refusals_of(case)
    found = [(r.op, r.reason) for r in error.refusals]
    assert [op for op, _ in found] == [op for op, _ in case.refused], str(error)
    for (op, reason), (_, pattern) in zip(found, case.refused, strict=True):
        assert re.search(pattern, reason), f"{op}: {reason}"
    for r in error.refusals:
        assert r.path.startswith("fault")
        assert re.search(r"faults\.py:\d+", r.source)
        assert r.remedy


@every_fault
def test_no_remedy_is_refused_in_turn(case: Several):
    module = seeded(lambda: Behind(case.body))
    remedies.check(
        refusals_of(case),
        lambda **options: co.continual(module, case.inputs, **{"windows": "stream", **options}),
        lambda: co.continual(co.calibrate(module, case.inputs), case.inputs),
    )


def test_a_mean_has_other_forms_beside_a_reduction_that_has_none():
    error: Any = refusals_of(SEVERAL["one cause, two places"])
    mean, std = error.refusals
    assert "time_pooling" in mean.remedy
    assert "time_pooling" not in std.remedy
    assert "time_pooling" not in " ".join(
        r.remedy for r in refusals_of(SEVERAL["one cause, two places"], time_pooling="frame").refusals
    )


def test_the_table_of_an_explanation_goes_on_behind_a_refusal():
    case = SEVERAL["pre-emphasis, then the clip's mean"]
    text = str(co.explain(seeded(lambda: Behind(case.body)), case.inputs))
    assert text.count("can't be streamed exactly") == 1
    assert re.search(r"fault\.mean +mean over 20 frames", text)


def test_what_mixes_rows_is_refused_with_its_line():
    class Mixed(nn.Module):
        def forward(self, x):
            y = x - x.mean(0, keepdim=True)
            return torch.relu(y).mean(2)

    with pytest.raises(co.NotStreamable, match=r"y = x - x\.mean\(0, keepdim=True\)") as caught:
        co.continual(Mixed().eval(), torch.randn(3, 2, 8))
    assert all("rows" in r.reason for r in caught.value.refusals)
