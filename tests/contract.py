"""The contract of docs/design.md as one function: :func:`check_contract`. No tests are in this file."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import continual as co
from tests.reference import Reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}
TOO_SHORT = (RuntimeError, ValueError)  # what torch and we raise for a clip that is shorter than the network needs

Wire = Any  # a tensor, or a (nested) list of tensors


# ---- values ---------------------------------------------------------------------------------------------------------


def assert_equal(a: Wire, b: Wire, what: str = "outputs") -> None:
    """Equal as the contract means it: the largest difference, relative to the largest value."""
    assert a is not None, f"{what}: nothing, instead of {tree_map(lambda t: t.shape, b)}"
    left, right = tree_leaves(a), tree_leaves(b)
    assert [t.shape for t in left] == [t.shape for t in right], f"{what}: shapes differ"
    for s, t in zip(left, right):
        assert s.dtype == t.dtype, f"{what}: {s.dtype} and {t.dtype}"
        assert torch.equal(s.isnan(), t.isnan()), f"{what}: NaN at other places"
        assert torch.equal(s[s.isinf()], t[t.isinf()]), f"{what}: infinities differ"
        s, t = s.nan_to_num(0, 0, 0), t.nan_to_num(0, 0, 0)
        if t.numel():
            difference, scale = (s - t).abs().max().item(), max(1.0, t.abs().max().item())
            assert difference <= TOLERANCE[t.dtype] * scale, f"{what}: differ by {difference:.3g} at {t.dtype}"


def assert_identical(a: Wire, b: Wire, what: str = "outputs") -> None:
    """Equal bit for bit; ``None`` equals ``None``."""
    left, right = tree_leaves(a), tree_leaves(b)
    assert [None if t is None else t.shape for t in left] == [None if t is None else t.shape for t in right], what
    for s, t in zip(left, right):
        assert s is t is None or torch.equal(s.nan_to_num(7.25), t.nan_to_num(7.25)), f"{what} are not bit-identical"


def fingerprint(state: co.State | None) -> Any:
    """All that a state holds, as a value of its own."""
    if state is None:
        return None
    counts = [(node.path, node.n_in, node.n_out) for node in state.node.walk()]
    return state.clock, counts, {name: t.detach().clone() for name, t in state.tensors.items()}


def assert_same_state(a: Any, b: Any, what: str) -> None:
    """Fingerprints are bit-identical."""
    assert (a is None) == (b is None), what
    if a is not None:
        assert a[:2] == b[:2], f"{what}: counts differ"
        assert a[2].keys() == b[2].keys(), what
        assert_identical(list(a[2].values()), list(b[2].values()), what)


# ---- streams --------------------------------------------------------------------------------------------------------


def length(wire: Wire) -> int:
    """The number of frames in a clip or chunk; ``None`` has none."""
    return 0 if wire is None else tree_leaves(wire)[0].shape[2]


def cut(clip: Wire, start: int, stop: int) -> Wire:
    """Some frames of a clip."""
    return tree_map(lambda t: t[:, :, start:stop], clip)


def join(chunks: Sequence[Wire]) -> Wire:
    """Chunks one after another; ``None`` if there is none."""
    chunks = [c for c in chunks if c is not None]
    return tree_map(lambda *ts: torch.cat(ts, 2), *chunks) if chunks else None


def random_split(total: int, rng: random.Random) -> list[int]:
    """Chunk sizes 0, 1, 2, … that add up to ``total``; the last may be empty."""
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(min(rng.choice((0, 1, 1, 1, 2, 3, 5, 8)), total - sum(sizes)))
    return sizes + [0] * rng.randint(0, 1)


def call(net: Any, chunk: Wire, step: bool = False, pad_end: bool = False, update_state: bool = True) -> Wire:
    """One chunk through ``forward_steps``, or with ``step`` through ``forward_step``; the outputs with a time axis."""
    if not step:
        return net.forward_steps(chunk, pad_end=pad_end, update_state=update_state)
    y = net.forward_step(tree_map(lambda t: t[:, :, 0], chunk), update_state=update_state)
    return y if y is None or net.timing.bursts else tree_map(lambda t: t.unsqueeze(2), y)


def stream(net: Any, clip: Wire, sizes: Sequence[int], step: Callable[[], bool] = bool, end: bool = True) -> list[Wire]:
    """Run a clip in chunks on the stream that is open.

    Args:
        sizes: the chunks.
        step: asked for each chunk of one whether ``forward_step`` shall take it (not for one that ends the stream).
        end: flush with the last chunk.

    Returns:
        What every call returned.
    """
    outs, at = [], 0
    for i, size in enumerate(sizes):
        last = end and i == len(sizes) - 1
        outs.append(call(net, cut(clip, at, at + size), size == 1 and not last and step(), last))
        at += size
    return outs


def run(net: Any, clip: Wire, sizes: Sequence[int], step: Callable[[], bool] = bool) -> Wire:
    """The joined outputs of a stream from its start to its end."""
    net.clean_state()
    return join(stream(net, clip, sizes, step))


def forward_of(net: Any, clip: Wire) -> Wire:
    """``forward`` of a clip; the output alone where it returns a hidden state too."""
    y = net.forward(clip)
    return y[0] if getattr(net, "_gives_more", False) else y


def clip_of(net: Any, clip: Wire) -> Wire:
    """``forward`` of a clip, ``None`` where it is too short for it."""
    try:
        return forward_of(net, clip)
    except TOO_SHORT:
        return None


def refuses_the_length(net: Any, clip: Wire) -> bool:
    """Whether ``forward`` refuses a clip because branches have different lengths for it, not because it is too short."""
    try:
        net.forward(clip)
    except co.ShapeMismatch as error:
        return "the branches have" in str(error)
    except TOO_SHORT:
        pass
    return False


# ---- the contract ---------------------------------------------------------------------------------------------------


def check_contract(net: Any, clip: Wire, reference: nn.Module | None = None, seed: int = 0) -> None:
    """Everything that holds for every module on every clip. Raises ``AssertionError``.

    Args:
        net: the streaming module, in eval mode.
        clip: ``(B, C, T, *S)``.
        reference: the ``torch.nn`` module that it stands for.
        seed: of the random splits.
    """
    rng = random.Random(seed)
    with torch.no_grad():
        expected = clip_of(net, clip)
        wanted = None if reference is None else clip_of(reference, clip)
        if wanted is not None:
            assert_equal(expected, wanted, "clip and reference")
        check_chunkings(net, clip, expected, rng)
        check_purity(net, clip, rng)
        check_snapshot(net, clip, rng)
        check_rows(net, clip, rng)
    with torch.enable_grad():
        _check_split(net, clip, expected, random_split(length(clip), rng), lambda: rng.random() < 0.5)
    check_pure_steps(net, clip, expected, rng)
    net.clean_state()


def check_chunkings(net: Any, clip: Wire, expected: Wire, rng: random.Random) -> None:
    """Points 2 and 3: all splits give the clip's outputs, and each output comes when ``timing`` says."""
    total = length(clip)
    _check_split(net, clip, expected, [1] * total + [0], lambda: True)
    _check_split(net, clip, expected, [total], lambda: False)
    for _ in range(2):
        _check_split(net, clip, expected, random_split(total, rng), lambda: rng.random() < 0.5)


def _check_split(net: Any, clip: Wire, expected: Wire, sizes: list[int], step: Callable[[], bool]) -> None:
    net.clean_state()
    outs = stream(net, clip, sizes, step)
    seen = given = 0
    for size, out in zip(sizes[:-1], outs[:-1]):
        seen, given = seen + size, given + length(out)
        assert out is None or length(out) > 0, f"{sizes}: an empty chunk instead of None"
        assert given == net.timing.delivered(seen), f"{sizes}: {given} outputs after {seen} inputs"
    found = join(outs)
    assert length(found) == net.timing.ended(length(clip)), f"{sizes}: number of outputs at the end"
    if expected is None:
        assert found is None, f"{sizes}: outputs of a clip that forward refuses"
    else:
        assert found is not None, f"{sizes}: no outputs"
        assert_equal(found, expected, f"chunks {sizes}")


def check_purity(net: Any, clip: Wire, rng: random.Random) -> None:
    """Point 4: ``update_state=False`` and ``pad_end=True`` leave the stream as it is."""
    total = length(clip)
    at, size = rng.randint(0, total - 1), rng.randint(1, 4)
    chunk, rest = cut(clip, at, at + size), cut(clip, at + size, total)
    net.clean_state()
    stream(net, clip, random_split(at, rng), lambda: True, end=False)
    before, snapshot = fingerprint(net._stream), net.get_state()
    flush = not refuses_the_end(net, cut(clip, 0, at + size), chunk, before)
    for step, pad_end in ((True, False), (False, False), *[(False, True)] * flush):
        given = cut(chunk, 0, 1) if step else chunk
        dry = call(net, given, step, pad_end, update_state=False)
        assert_same_state(fingerprint(net._stream), before, f"update_state=False, {step=}, {pad_end=}")
        assert_identical(dry, call(net, given, step, pad_end), f"dry and updating call, {step=}, {pad_end=}")
        net.set_state(snapshot)
    call(net, chunk)
    wanted, outs = fingerprint(net._stream), stream(net, rest, [length(rest)])
    net.set_state(snapshot)
    call(net, chunk, pad_end=flush)
    assert_same_state(fingerprint(net._stream), wanted, "pad_end=True and the same call without it")
    assert_identical(stream(net, rest, [length(rest)]), outs, "the stream after a flush")


def refuses_the_end(net: Any, clip: Wire, chunk: Wire, before: Any) -> bool:
    """Point 11: whether a stream can't end after a chunk, since branches have different lengths for this clip. It is unharmed."""
    try:
        call(net, chunk, pad_end=True, update_state=False)
    except co.ShapeMismatch:
        assert clip_of(net, clip) is None, f"the stream refuses to end after {length(clip)} inputs, forward does not"
        assert_same_state(fingerprint(net._stream), before, "a refused end")
        return True
    return False


def check_snapshot(net: Any, clip: Wire, rng: random.Random) -> None:
    """Point 5: a snapshot is independent, and makes the future identical."""
    total = length(clip)
    at = rng.randint(0, total)
    rest, sizes = cut(clip, at, total), [*random_split(total - at, rng), 0]
    net.clean_state()
    stream(net, clip, random_split(at, rng), lambda: True, end=False)
    snapshot = net.get_state()
    before = fingerprint(snapshot)
    futures = []
    for _ in range(2):
        futures.append(stream(net, rest, sizes, lambda: True))
        assert_same_state(fingerprint(snapshot), before, "a snapshot while its stream goes on")
        net.set_state(snapshot)
    assert_identical(*futures, "the futures of a snapshot")


def check_rows(net: Any, clip: Wire, rng: random.Random) -> None:
    """Point 6: a row's outputs do not depend on the others, NaN included."""
    rows = tree_leaves(clip)[0].shape[0]
    row, sizes = rng.randrange(rows), random_split(length(clip), rng)
    others = [b for b in range(rows) if b != row]
    spoilt = tree_map(lambda t: t.index_fill(0, torch.tensor(others, dtype=torch.long), float("nan")), clip)
    alone, among = run(net, clip, sizes), run(net, spoilt, sizes)
    if alone is not None:
        assert_equal(*(tree_map(lambda t: t[row], y) for y in (among, alone)), "a row among NaN")


def check_pure_steps(net: Any, clip: Wire, expected: Wire, rng: random.Random) -> None:
    """``init_state``, ``step`` and ``steps`` are the same computation, and change neither a state nor the module."""
    net.clean_state()
    state = net.init_state(tree_map(lambda t: t[:, :, 0], clip))
    outs, at, sizes = [], 0, random_split(length(clip), rng)
    for i, size in enumerate(sizes):
        chunk, before = cut(clip, at, at + size), fingerprint(state)
        if size == 1 and i < len(sizes) - 1:
            y, new = net.step(tree_map(lambda t: t[:, :, 0], chunk), state)
            y = y if y is None or net.timing.bursts else tree_map(lambda t: t.unsqueeze(2), y)
        else:
            y, new = net.steps(chunk, state, pad_end=i == len(sizes) - 1)
        assert_same_state(fingerprint(state), before, "the old state after a pure step")
        outs.append(y)
        state, at = new, at + size
    assert net.get_state() is None, "a pure step opened the module's own stream"
    if expected is not None:
        assert_equal(join(outs), expected, f"pure steps {sizes}")


# ---- dependence, by brute force -------------------------------------------------------------------------------------


def outputs_due(net: Any, clip: Tensor) -> list[int]:
    """For ``n = 0, 1, …``: how many leading outputs neither exist nor change with what comes after ``n`` inputs.

    None of them may be held back. What comes is marked with NaN, and left out: the end of a clip changes outputs too. ``n``
    stops a receptive field (and a margin for crops) before the end of the clip.
    """
    total = length(clip)
    # Lengths that branches can't agree on say nothing: no such clip has outputs.
    ends = [e for e in range(total + 1) if not refuses_the_length(net, clip[:, :, :e])]
    lengths = {e: length(clip_of(net, clip[:, :, :e])) for e in ends}
    due = [0]
    for n in range(1, total - net.receptive_field - 12):
        spoilt = clip.clone()
        spoilt[:, :, n:] = float("nan")
        later = [e for e in ends if e >= n]
        count = min(lengths[e] for e in later)
        futures = [clip_of(net, spoilt[:, :, :e])[:, :, :count] for e in (*later[:2], *later[3:4], later[-1])] if count else []
        for y in futures:
            known = torch.isclose(y, futures[0], 1e-9, 1e-9).movedim(2, 0).flatten(1).all(1)
            count = min(count, int(known.long().cumprod(0).sum()))
        due.append(count)
    return due


def gradients(net: Any, y: Tensor, clip: Tensor) -> list[Tensor]:
    """Gradients of a weighted sum of the outputs, with respect to the clip and all parameters; zeros where nothing depends on them."""
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    wanted = [clip, *(p for p in net.parameters() if p.requires_grad)]
    if not y.requires_grad:  # padding alone
        return [torch.zeros_like(w) for w in wanted]
    found = torch.autograd.grad((y * weight).sum(), wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found)]


def check_gradients(net: Any, clip: Tensor, seed: int = 0) -> None:
    """Point 8: gradients through a stream equal those of ``forward``."""
    rng = random.Random(seed)
    clip = clip.clone().requires_grad_()
    expected = gradients(net, forward_of(net, clip), clip)
    found = gradients(net, run(net, clip, random_split(length(clip), rng), lambda: rng.random() < 0.5), clip)
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert_equal(a, b, "gradients")
    net.clean_state()


def check_layer(net: Any, reference: nn.Module, shape: Sequence[int]) -> None:
    """The contract of a layer in double and single precision, against the ``torch.nn`` layer whose weights it takes over.

    Args:
        net: the streaming layer.
        reference: a ``torch.nn`` module; keys and shapes of its ``state_dict`` are those of the layer.
        shape: of the clip ``(B, C, T, *S)``.
    """
    for dtype in (torch.float64, torch.float32):
        net, reference = net.to(dtype).eval(), reference.to(dtype).eval()
        net.load_state_dict(reference.state_dict())
        clip = torch.randn(*shape).to(dtype)
        check_contract(net, clip, reference)
        if dtype == torch.float64:
            check_gradients(net, clip)


class TimePadded(Reference):
    """Pads time explicitly, then runs a module that does not: what ``temporal_fill`` means."""

    def __init__(self, inner: nn.Module, start: int, end: int, fill: str):
        super().__init__(inner)
        self.start, self.end, self.fill = start, end, fill

    def forward(self, x: Tensor) -> Tensor:
        if self.fill in ("zeros", "neg_inf"):
            value = 0.0 if self.fill == "zeros" else -torch.inf
            edges = (x.new_full((*x.shape[:2], n, *x.shape[3:]), value) for n in (self.start, self.end))
            return self.inner[0](torch.cat((next(edges), x, next(edges)), 2))
        times = torch.arange(x.shape[2], dtype=torch.float64).view(1, 1, -1)
        times = nn.functional.pad(times, (self.start, self.end), self.fill).long().flatten()
        return self.inner[0](x.index_select(2, times))
