"""Published checkpoints, by the names of their weights.

| format | what it holds | networks |
|---|---|---|
| own names | PySlowFast's names for X3D, pytorchvideo's for Slow and I3D, ST-GCN's for skeletons | all |
| pytorchvideo X3D | the stem's two convolutions under swapped names, no batch norm in the first shortcut | CoX3D |
| Caffe2 I3D | the blobs of a ``.pkl`` file | CoI3D |
| continual-skeletons | numbers of containers between block and layer | skeletons |

Files may wrap the weights (``model_state`` of PySlowFast, ``state_dict`` of Lightning, with a prefix such as ``model.``).
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointMismatch
from .zoo import Model

Weights = dict[str, Tensor]
SHOWN = 20  # names of each kind in a message
WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model", "blobs")


def load_weights(net: Model, checkpoint: str | PathLike[str] | Mapping[str, Any]) -> Model:
    """Load a published checkpoint into a network of the zoo. Reading a file runs no code in it.

    Args:
        net: the network. It keeps its weights if the checkpoint does not fit.
        checkpoint: a file, or its content.

    Returns:
        The network.

    Raises:
        CheckpointMismatch: the file can't be read as weights, or weights are missing, extra or of another shape. All of them are in the
            lists ``missing``, ``extra`` and ``misshaped`` of the error.

    Example:
        >>> net = co.models.create("cost_gcn_star", input_size=18)
        >>> lightning = {"state_dict": {f"model.{name}": w for name, w in net.state_dict().items()}}
        >>> co.models.load_weights(net, lightning) is net
        True
    """
    from_file = not isinstance(checkpoint, Mapping)
    source = Path(fspath(checkpoint)).name if from_file else "the checkpoint"  # type: ignore[arg-type]
    loaded = _unwrapped(_read(Path(checkpoint)) if from_file else checkpoint, source)  # type: ignore[arg-type]
    names = FORMATS[_format_of(loaded, net.state_dict())](loaded, net)
    _fill(net, names, f"{net.card.name}: {source}")
    return net


def load_plain(net: nn.Module, path: Path) -> None:
    """Load the weights of a file into any module. Reading it runs no code in it.

    Args:
        net: the module. It keeps its weights if the file does not fit.
        path: a ``state_dict`` by ``torch.save`` or as safetensors, also wrapped by a trainer or with a prefix such as ``model.``.

    Raises:
        CheckpointMismatch: as for :func:`load_weights`.
    """
    loaded = _unwrapped(_read(path), path.name)
    _fill(net, _without_prefix(loaded, net.state_dict()), f"{type(net).__name__}: {path.name}")


def _fill(net: nn.Module, names: Weights, what: str) -> None:
    own: Weights = net.state_dict()
    _check(names, own, what)
    with torch.no_grad():
        for name, value in names.items():
            own[name].copy_(value)


# ---- reading ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointMismatch(f"'{path}' is not a file: give the path of a checkpoint")
    try:
        if path.suffix == ".pkl":
            with path.open("rb") as file:
                return _OfArrays(file, encoding="latin1").load()
        if path.suffix == ".safetensors":
            return _safetensors(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions of pickle: what can't be read is an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, pickle.UnpicklingError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointMismatch(
            f"'{path.name}' can't be read as weights ({why[:200]}). Only tensors are loaded, never code: if the file holds other objects "
            "and you trust it, save its state_dict alone with torch.save"
        ) from error


def _safetensors(path: Path) -> Weights:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointMismatch(f"reading '{path.name}' needs safetensors: pip install safetensors") from error
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(str(error)) from error


class _OfArrays(pickle.Unpickler):
    """Reads dictionaries of numpy arrays and nothing else."""

    ALLOWED = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "scalar"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unwrapped(contents: Any, source: str) -> Weights:
    """The weights in the content of a file."""
    while isinstance(contents, Mapping) and (
        inner := next((contents[k] for k in WRAPPERS if isinstance(contents.get(k), Mapping)), None)
    ):
        contents = inner
    if not isinstance(contents, Mapping) or not contents:
        raise CheckpointMismatch(f"{source} holds no dictionary of weights, but a {type(contents).__name__}")
    found = {name: value if isinstance(value, Tensor) else _tensor(value) for name, value in contents.items()}
    if others := [str(name) for name, value in found.items() if value is None or not isinstance(name, str)]:
        raise CheckpointMismatch(f"{source} holds other objects besides weights: {_listed(others)}", extra=others)
    return found  # type: ignore[return-value]


def _tensor(value: Any) -> Tensor | None:
    """A numpy array as a tensor; ``None`` for other objects."""
    numbers = hasattr(value, "__array__") and value.dtype.kind in "fiub"
    return torch.as_tensor(value.copy()) if numbers else None


# ---- names ------------------------------------------------------------------------------------------------------------

NOT_WEIGHTS = re.compile(r"num_batches_tracked$")  # counts of training steps, which some checkpoints lack
OF_CAFFE2 = re.compile(r"^(conv1_w|res_conv1_bn_\w+|res\d_\d+_branch\w+|pred_[wb])$")


def _format_of(loaded: Iterable[str], own: Iterable[str]) -> str:
    names = set(loaded)
    if "conv1_w" in names:
        return "Caffe2 I3D"
    tail = any(name.endswith("blocks.0.conv.conv_t.weight") for name in names)
    if tail and any(name.startswith("s1.") for name in own):
        return "pytorchvideo X3D"
    if any(re.search(r"layer\d+\.0\.[01]\.", name) for name in names):
        return "continual-skeletons"
    return "own names"


def _own_names(loaded: Weights, net: Model) -> Weights:
    return _without_prefix(loaded, net.state_dict())


def _without_prefix(loaded: Weights, own: Iterable[str]) -> Weights:
    """Names without the common prefix of a trainer, if more of them fit then."""
    expected = set(own)
    parts = next(iter(loaded)).split(".")
    prefixes = [".".join(parts[:i]) + "." for i in range(1, len(parts))]
    shared = ["", *(p for p in prefixes if all(name.startswith(p) for name in loaded))]
    best = max(shared, key=lambda p: sum(name[len(p) :] in expected for name in loaded))
    return {name[len(best) :]: value for name, value in loaded.items()}


# Longest first: each name is rewritten by the first rule that fits.
_X3D_RULES = (
    (r"^blocks\.0\.conv\.conv_t\.", "s1.pathway0_stem.conv_xy."),  # the published names of the two are swapped
    (r"^blocks\.0\.conv\.conv_xy\.", "s1.pathway0_stem.conv."),
    (r"^blocks\.0\.norm\.", "s1.pathway0_stem.bn."),
    (r"^blocks\.5\.pool\.pre_conv\.", "head.conv_5."),
    (r"^blocks\.5\.pool\.pre_norm\.", "head.conv_5_bn."),
    (r"^blocks\.5\.pool\.post_conv\.", "head.lin_5."),
    (r"^blocks\.5\.proj\.", "head.projection."),
)
_X3D_PARTS = (
    ("branch1_conv", "branch1"),
    ("branch1_norm", "branch1_bn"),
    ("branch2.conv_a", "branch2.a"),
    ("branch2.conv_b", "branch2.b"),
    ("branch2.conv_c", "branch2.c"),
    ("branch2.norm_a", "branch2.a_bn"),
    ("branch2.norm_b.0", "branch2.b_bn"),
    ("branch2.norm_b.1.block.0", "branch2.se.fc1"),
    ("branch2.norm_b.1.block.2", "branch2.se.fc2"),
    ("branch2.norm_c", "branch2.c_bn"),
)
_X3D_BLOCK = re.compile(r"^blocks\.([1-4])\.res_blocks\.(\d+)\.(.+)\.(\w+)$")


def _x3d_name(name: str) -> str:
    for pattern, new in _X3D_RULES:
        if re.match(pattern, name):
            return re.sub(pattern, new, name)
    if (found := _X3D_BLOCK.match(name)) and (part := dict(_X3D_PARTS).get(found[3])):
        return f"s{int(found[1]) + 1}.pathway0_res{found[2]}.{part}.{found[4]}"
    return name


def _of_pytorchvideo_x3d(loaded: Weights, net: Model) -> Weights:
    prefix = next(name for name in loaded if name.endswith("blocks.0.conv.conv_t.weight"))[: -len("blocks.0.conv.conv_t.weight")]
    names = {_x3d_name(name.removeprefix(prefix)): value for name, value in loaded.items()}
    path = "s2.pathway0_res0.branch1_bn"
    if not any(name.startswith(path) for name in names):  # it has no norm where the number of channels stays
        norm: Any = net.get_submodule(path)
        zero = torch.zeros(norm.num_features, dtype=torch.float64)
        own = {"weight": zero + math.sqrt(1 + norm.eps), "bias": zero, "running_mean": zero, "running_var": zero + 1}
        names |= {f"{path}.{key}": value for key, value in own.items()}
    return names


_CAFFE2_ENDS = {"w": "weight", "b": "bias", "bn_s": "weight", "bn_b": "bias", "bn_rm": "running_mean", "bn_riv": "running_var"}


def _caffe2_name(name: str) -> str:
    """The name in the layout of pytorchvideo, which has a pool between the first two stages."""
    if found := re.match(r"^pred_([wb])$", name):
        return f"blocks.6.proj.{_CAFFE2_ENDS[found[1]]}"
    if name == "conv1_w":
        return "blocks.0.conv.weight"
    if found := re.match(r"^res_conv1_(bn_\w+)$", name):
        return f"blocks.0.norm.{_CAFFE2_ENDS.get(found[1], found[1])}"
    if found := re.match(r"^res(\d)_(\d+)_branch(1|2[abc])_(w|bn_\w+)$", name):
        stage, block, branch, end = found.groups()
        part = "norm" if end.startswith("bn") else "conv"
        where = f"branch1_{part}" if branch == "1" else f"branch2.{part}_{branch[1]}"
        place = 1 if stage == "2" else int(stage)
        return f"blocks.{place}.res_blocks.{block}.{where}.{_CAFFE2_ENDS.get(end, end)}"
    return name


def _of_caffe2(loaded: Weights, net: Model) -> Weights:
    weights = {name: value for name, value in loaded.items() if OF_CAFFE2.match(name) and not name.endswith("_momentum")}
    return {_caffe2_name(name): value for name, value in weights.items()}  # the rest belongs to the optimiser


def _of_continual_skeletons(loaded: Weights, net: Model) -> Weights:
    names = {re.sub(r"(layer\d+)\.0\.(1|0(?=\.residual))\.", r"\1.", name): value for name, value in loaded.items()}
    return _without_prefix(names, net.state_dict())


FORMATS: dict[str, Callable[[Weights, Model], Weights]] = {
    "own names": _own_names,
    "pytorchvideo X3D": _of_pytorchvideo_x3d,
    "Caffe2 I3D": _of_caffe2,
    "continual-skeletons": _of_continual_skeletons,
}


# ---- checking ---------------------------------------------------------------------------------------------------------


def _check(loaded: Weights, own: Weights, what: str) -> None:
    """Refuse weights that do not fit, with a list of all differences."""
    missing = [name for name in own if name not in loaded and not NOT_WEIGHTS.search(name)]
    extra = [name for name in loaded if name not in own]
    shapes = [(name, tuple(value.shape), tuple(own[name].shape)) for name, value in loaded.items() if name in own]
    misshaped = [f"{name} {got}, expected {expected}" for name, got, expected in shapes if got != expected]
    if not (missing or extra or misshaped):
        return
    lines = [f"{what} does not fit; nothing was loaded."]
    for title, names in (("missing", missing), ("not known", extra), ("of another shape", misshaped)):
        if names:
            lines.append(f"  {len(names)} {title}: {_listed(names)}")
    if misshaped and not missing and not extra:
        lines.append(
            "  If only the classifier differs, create the network with the checkpoint's `classes`, then replace that layer."
        )
    raise CheckpointMismatch("\n".join(lines), missing, extra, misshaped)


def _listed(names: list[str]) -> str:
    more = f" … and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
