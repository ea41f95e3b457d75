"""The import paths that code written for continual-inference 1.2.4 uses: docs/migrating.md.

`continual.onnx` comes with export.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import continual as co

CONVOLUTIONS = "Conv1d Conv2d Conv3d"
POOLS = (
    "AvgPool1d AvgPool2d AvgPool3d MaxPool1d MaxPool2d MaxPool3d "
    "AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool2d AdaptiveMaxPool3d"
)
RECURRENT = "RNN GRU LSTM"
ATTENTION = "SingleOutputMultiheadAttention RetroactiveMultiheadAttention"
TRANSFORMERS = (
    "SingleOutputTransformerEncoderLayer RetroactiveTransformerEncoderLayer TransformerEncoderLayerFactory TransformerEncoder"
)
CONTAINERS = "Sequential Parallel Broadcast ParallelDispatch Reduce BroadcastReduce Residual Conditional"
CLOSURES = "Lambda Add Multiply Constant Zero One Identity"

PATHS: dict[str, str] = {
    "container": CONTAINERS,
    "closure": CLOSURES,
    "convert": "continual forward_stepping register",
    "conv": CONVOLUTIONS,
    "pooling": POOLS,
    "rnn": RECURRENT,
    "linear": "Linear",
    "delay": "Delay",
    "skip": "Skip",
    "shape": "Reshape",
    "transformer": f"{TRANSFORMERS} MhaType",
    "multihead_attention": ATTENTION,
    "positional_encoding": "RecyclingPositionalEncoding",
    "utils": "flat_state_dict state_dict load_state_dict",
    "module": "CoModule call_mode PaddingMode",
}
NOT_AT_THE_TOP = {"register", "MhaType"}


@pytest.mark.parametrize("path", PATHS)
def test_names_are_where_existing_code_imports_them_from(path: str):
    module = importlib.import_module(f"continual.{path}")
    assert getattr(co, path) is module, f"`import continual as co; co.{path}` has to work without a further import"
    for name in PATHS[path].split():
        assert hasattr(module, name), f"from continual.{path} import {name}"
        if name not in NOT_AT_THE_TOP:
            assert getattr(co, name) is getattr(module, name), f"co.{name} is another object"


def test_all_is_what_is_there():
    assert len(co.__all__) == len(set(co.__all__))
    assert [name for name in co.__all__ if not hasattr(co, name)] == []
    names = {name for names in PATHS.values() for name in names.split()}
    assert (names | PATHS.keys()) - NOT_AT_THE_TOP <= set(co.__all__)


def test_an_editor_completes_what_is_public():
    """Also what is imported when it is first used."""
    hidden = "[n for n in co.__all__ if n not in shown]"
    private = "[n for n in shown if n not in co.__all__ and not n.startswith('__')]"
    code = f"import continual as co; shown = dir(co); print({hidden}, {private})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_few_names_lie_directly_in_the_package():
    names = [path.name for path in Path(co.__file__).parent.iterdir() if path.name != "__pycache__"]
    assert len(names) <= 30, f"a new module belongs into one of the folders: {sorted(names)}"


def test_no_optional_package_and_nothing_slow_is_imported():
    """An import costs some 50 ms beyond torch's second; each of these would add more than that."""
    heavy = [
        "numpy", "ptflops", "sympy", "torch._dynamo", "torch._inductor", "torch.export", "torch.fx.experimental.symbolic_shapes",
        "torch.onnx", "torch.utils.flop_counter",
    ]  # fmt: skip
    code = f"import sys, torch; before = set(sys.modules); import continual; print([m for m in {heavy} if m in set(sys.modules) - before])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
