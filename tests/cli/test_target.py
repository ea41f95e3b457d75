"""Which network is meant: modules, files, factories and their arguments; everything else gets a line that helps."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from continual.cli.target import BadInput, load

NETS = """
from torch import nn

class Net(nn.Conv1d):
    def __init__(self, width=4, kernel=3, *, mode="zeros", shape=(1, 2)):
        super().__init__(2, width, kernel, padding_mode=mode)
        self.shape = shape

class Zoo:
    small = nn.ReLU()
    @staticmethod
    def big():
        return Net(64)

ready = Net(5)
number = 3

def build(width):
    return Net(width)

def wrong():
    return 3

def broken():
    raise ValueError("no\\n  weights")
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with networks in it, from which the command is run."""
    (tmp_path / "some_nets.py").write_text(NETS)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "__init__.py").write_text("")
    (tmp_path / "deep" / "more_nets.py").write_text("from deep.neighbour_nets import other\n")
    (tmp_path / "deep" / "neighbour_nets.py").write_text("from torch import nn\nother = nn.Tanh()\n")
    (tmp_path / "deep" / "beside.py").write_text("from neighbour_nets import other\n")
    (tmp_path / "deep" / "bad_import.py").write_text("x = 1\nimport no_such_package_at_all\n")
    (tmp_path / "deep" / "bad_syntax.py").write_text("def (:\n")
    (tmp_path / "deep" / "bad_start.py").write_text("raise RuntimeError('no GPU')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        if name.split(".")[0] in ("some_nets", "deep", "beside", "neighbour_nets") or name.startswith("_target_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    "target, kind, width",
    [
        ("some_nets:ready", "Net", 5),
        ("some_nets:Net", "Net", 4),
        ("some_nets.py:Zoo.big", "Net", 64),
        ("some_nets:Zoo.small", "ReLU", None),
        ("./some_nets.py:Net", "Net", 4),
        ("deep.more_nets:other", "Tanh", None),
        ("deep/more_nets.py:other", "Tanh", None),
        ("deep/beside.py:other", "Tanh", None),
        ("torch.nn:ReLU", "ReLU", None),
    ],
)
def test_networks(target: str, kind: str, width: int | None):
    net = load(target)
    assert type(net).__name__ == kind
    assert getattr(net, "out_channels", None) == width


def test_arguments_are_python_values():
    net = load("some_nets:Net", ["width=6", "mode=circular", "shape=(3, 'a', None)", "kernel = 5"])
    assert (net.out_channels, net.kernel_size, net.padding_mode, net.shape) == (6, (5,), "circular", (3, "a", None))
    assert load("some_nets:Net", ["mode='reflect'"]).padding_mode == "reflect"


BAD = {
    "some_nets": "names no network: give package.module:factory or path/to/file.py:factory",
    "some_nets:": "names no network",
    ":build": "names no network",
    "sum_nets:build": "there is no module 'sum_nets' (looked in the current folder and where Python looks)",
    "deep.nothing:build": "there is no module 'deep.nothing'",
    "no/such.py:build": "there is no file 'no/such.py'",
    "some_nets:biuld": "'some_nets' has no 'biuld' (did you mean 'build'?)",
    "some_nets:Zoo.huge": "'some_nets' has no 'huge'",
    "some_nets:number": "some_nets:number is of type int; it must be an nn.Module, or a function or class that gives one",
    "some_nets:wrong": "some_nets:wrong gives int, not an nn.Module",
    "some_nets:broken": "some_nets:broken can't be called: ValueError: no weights (some_nets.py, line 25)",
    "some_nets:build": "missing 1 required positional argument: 'width' (give arguments with --arg name=value)",
    "deep.bad_import:x": "ModuleNotFoundError: No module named 'no_such_package_at_all' (bad_import.py, line 2)",
    "deep/bad_syntax.py:x": "can't import 'deep/bad_syntax.py': SyntaxError: ",
    "deep/bad_start.py:x": "RuntimeError: no GPU (bad_start.py, line 1)",
}


@pytest.mark.parametrize("target", BAD)
def test_what_names_no_network(target: str):
    with pytest.raises(BadInput) as raised:
        load(target)
    assert BAD[target] in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "argument, message",
    [
        ("width", "--arg width: give name=value"),
        ("2x=3", "--arg 2x=3: give name=value"),
        ("width=[1,", "'[1,' is not a Python value"),
        ("depth=3", "unexpected keyword argument 'depth'"),
    ],
)
def test_arguments_that_do_not_fit(argument: str, message: str):
    with pytest.raises(BadInput) as raised:
        load("some_nets:Net", [argument])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_module_takes_no_arguments():
    with pytest.raises(BadInput, match="some_nets:ready is a module, no factory: it takes no --arg width"):
        load("some_nets:ready", ["width=3"])


def test_a_file_that_fails_leaves_no_module_behind():
    ours = sys.modules["continual"]
    Path("continual.py").write_text("raise RuntimeError('mine')\n")
    with pytest.raises(BadInput, match="mine"):
        load("continual.py:net")
    assert sys.modules["continual"] is ours
    assert "_target_continual" not in sys.modules
    with pytest.raises(BadInput):
        load("deep/bad_start.py:x")
    assert "bad_start" not in sys.modules


def test_a_file_that_is_named_like_an_imported_module_is_read_all_the_same():
    Path("pytest.py").write_text("from torch import nn\nnet = nn.Tanh()\n")
    assert isinstance(load("pytest.py:net"), nn.Tanh)
    assert sys.modules["pytest"] is pytest


def test_classes_of_a_file_can_be_pickled():
    for target in ("some_nets.py:Net", "some_nets.py:Net"):  # the second is another module, under another name
        net = load(target)
        assert type(pickle.loads(pickle.dumps(net))) is type(net)
