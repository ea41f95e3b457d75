"""The import paths that code written for continual-inference 1.2.4 uses: docs/migrating.md."""

from __future__ import annotations

import importlib
import logging
import operator
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import continual as co
from continual.logging import getLogger

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

REDUCTIONS = "reduce_sum reduce_concat reduce_mul reduce_max"
ABOUT = "__version__ __author__ __author_email__ __license__ __copyright__ __homepage__ __docs__"

PATHS: dict[str, str] = {
    "__about__": ABOUT,
    "container": f"{CONTAINERS} {REDUCTIONS}",
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
    "logging": "getLogger",
    "multihead_attention": ATTENTION,
    "multihead_attention.retroactive_mha": "RetroactiveMultiheadAttention",
    "multihead_attention.single_output_mha": "SingleOutputMultiheadAttention",
    "onnx": "export OnnxWrapper",
    "positional_encoding": "RecyclingPositionalEncoding",
    "utils": "flat_state_dict state_dict load_state_dict flatten temporary_parameter",
    "module": "CoModule call_mode PaddingMode",
}
NOT_AT_THE_TOP = {  # names, and modules that are at hand without being listed
    "MhaType", "OnnxWrapper", "export", "flatten", "getLogger", "register", "temporary_parameter", *REDUCTIONS.split(), *ABOUT.split(),
    "__about__", "logging", "multihead_attention.retroactive_mha", "multihead_attention.single_output_mha",
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_names_are_where_existing_code_imports_them_from(path: str):
    module = importlib.import_module(f"continual.{path}")
    assert operator.attrgetter(path)(co) is module, f"`import continual as co; co.{path}` has to work without a further import"
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
    """Also what is imported when it is first used; `co.logging` needs no import, as there."""
    hidden = "[n for n in co.__all__ if n not in shown]"
    private = "[n for n in shown if n not in co.__all__ and not n.startswith('__')]"
    code = f"import continual as co; shown = dir(co); print({hidden}, {private}, co.logging.getLogger.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] [] getLogger"


def test_few_names_lie_directly_in_the_package():
    names = {path.name for path in Path(co.__file__).parent.iterdir()} - {"__pycache__", "py.typed"}
    assert len(names) <= 32, f"a new module belongs into one of the folders: {sorted(names)}"


def test_facts_about_the_package():
    about = importlib.import_module("continual.__about__")
    assert about.__version__ == co.__version__
    assert all(type(getattr(about, name)) is str for name in ABOUT.split())
    assert (co.__license__, co.__copyright__) == (about.__license__, about.__copyright__)


def test_messages_that_are_logged_once(caplog: pytest.LogCaptureFixture):
    once, again = getLogger("continual.test.once", log_once=True), getLogger("continual.test.again")
    with caplog.at_level(logging.INFO):
        for logger in (once, again, getLogger("continual.test.once", log_once=True)):
            for text in ("Hey", "There %s", "Hey"):
                logger.warning(text, *(["you"] if "%" in text else []))
        once.info("Hey")  # at another level it is another message
    found = [(r.name.rpartition(".")[2], r.levelname, r.getMessage()) for r in caplog.records]
    warned = [("once", "Hey"), ("once", "There you"), ("again", "Hey"), ("again", "There you"), ("again", "Hey")]
    assert found == [(name, "WARNING", text) for name, text in warned] + [("once", "INFO", "Hey")]


def test_an_attribute_for_a_while():
    pool = torch.nn.AvgPool1d(3)
    net = torch.nn.Sequential(pool)
    with co.utils.temporary_parameter(net, "0.stride", 1) as given:
        assert given is net
        assert pool.stride == 1
    with pytest.raises(TypeError), co.utils.temporary_parameter(pool, "stride", 2):
        pool("no tensor")
    assert pool.stride == (3,)
    with co.utils.temporary_parameter(pool, "note", None):
        assert pool.note is None
    assert not hasattr(pool, "note")


def test_what_nested_sequences_hold():
    nested = [1, (None, [2, "ab"]), []]
    assert co.utils.flatten(nested) == [1, 2, "ab"]
    assert co.utils.flatten(nested, remove_none=False) == [1, None, 2, "ab"]
    assert (co.utils.flatten(None), co.utils.flatten(5)) == ([], [5])
    a, b = torch.zeros(1), torch.ones(1)
    assert all(x is y for x, y in zip(co.utils.flatten([a, [b]]), (a, b), strict=True))


def test_reductions_as_functions():
    a, b = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    reduce = co.container
    assert torch.equal(reduce.reduce_sum([a, b, a]), a + b + a)
    assert torch.equal(reduce.reduce_mul([a, b, a]), a * b * a)
    assert torch.equal(reduce.reduce_concat([a, b]), torch.cat((a, b), 1))
    assert torch.equal(reduce.reduce_max([a, b, -a]), a.abs().maximum(b))


def test_no_optional_package_and_nothing_slow_is_imported():
    """An import costs some 50 ms beyond torch's second; each of these would add more than that."""
    heavy = [
        "numpy", "ptflops", "sympy", "torch._dynamo", "torch._inductor", "torch.export", "torch.fx.experimental.symbolic_shapes",
        "torch.onnx", "torch.utils.flop_counter",
    ]  # fmt: skip
    code = f"import sys, torch; before = set(sys.modules); import continual; print([m for m in {heavy} if m in set(sys.modules) - before])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
