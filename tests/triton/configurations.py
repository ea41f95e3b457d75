"""Made-up metadata: configurations are a function of it alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from continual.export.metadata import Metadata, Port
from continual.programs.schedule import OutputCount

Described = Sequence[tuple[str, tuple[int | None, ...], str]]
STATES: Described = (("state.calls", (None, 1), "int64"), ("state.0.window", (None, 3, 4), "float32"))


def metadata_of(
    states: Described = STATES, inputs: Sequence[Port] = (), outputs: Sequence[Port] = (), **changes: Any
) -> Metadata:
    """Metadata of a network that does not exist."""
    found = Metadata(
        format="onnx",
        network="Made",
        inputs=tuple(inputs) or (Port("x", (None, 3, 1), "float32", 2),),
        outputs=tuple(outputs) or (Port("y", (None, 5, 1), "float32", 2),),
        states=tuple(Port(*s) for s in states),
        structure=0,
        receptive_field=5,
        delay=4,
        stride=1,
        chunk=1,
        start=0,
        first=-4,
        per_call=1,
        totals=OutputCount((0,), 1, 1),
        flush=True,
        batch=None,
        rate=None,
        converted=False,
        unbounded=False,
        package_version="0.0.0",
    )
    return dataclasses.replace(found, **changes)
