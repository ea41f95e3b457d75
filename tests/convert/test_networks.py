"""Conversion by graph of networks that somebody else wrote."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import assert_equal, random_split
from tests.convert.networks import NETWORKS, Case
from tests.convert.streaming import as_windows, listed, stream
from tests.long import LONG, by_turns


@cache
def case_of(name: str) -> Case:
    """A network that no test changes."""
    return NETWORKS[name]()


STRIDED = ("r3d_18", "r2plus1d_18")
BIG = (*STRIDED, "resnet18_per_frame")  # some hundred megabytes of weights are read at every step
SMALL = [name for name in NETWORKS if name not in BIG]
CLIP_LEVEL = [name for name in NETWORKS if case_of(name)._clip_level]
ANY_LENGTH = [name for name in NETWORKS if case_of(name).any_length]
every_network = pytest.mark.parametrize("name", NETWORKS)
small_networks = pytest.mark.parametrize("name", SMALL)


def some_networks(test: str, share: int = 3, names: Sequence[str] = SMALL) -> pytest.MarkDecorator:
    """Networks take turns in what is much the same for all."""
    return pytest.mark.parametrize("name", by_turns(names, share, of=test))


# Receptive field, delay and stride by hand. Windows of a clip-level output are as long as the example's clip is at that place.
TIMINGS = {
    "r3d_18": (109 + 8, 62, 8),  # 109 of the convolutions, and a window of two outputs
    "r2plus1d_18": (109 + 8, 62, 8),
    "resnet18_per_frame": (6, 5, 1),
    "shift_network": (5, 2, 1),
    "shift_in_place": (5 + 7, 9, 1),
    "excitation": (5, 2, 1),
    "letters": (48 + 2 * (3 * 6 + 31), 72, 2),
    "conv_lstm": (None, 4, 2),
    "wavenet": (1 + 2 * 15, 0, 1),
    "raw_audio": (8 + 4 * 2, 11, 4),
    "tcn_causal": (1 + 2 * 2 * 7, 0, 1),
    "tcn_centered": (1 + 2 * 2 * 7, 14, 1),
    "gru_classifier": (None, 11, 1),
    "causal_transformer": (1 + 2 * 10, 0, 1),
    "skeleton_graph": (25 + 2 * 9, 30, 2),
    "skeleton_graph_given": (25 + 2 * 9, 30, 2),
    "two_heads": (7, 3, 1),
    "two_streams": (None, 2, 1),
    "unlucky_names": (4, 1, 1),
}


@cache
def twin_of(name: str) -> Any:
    """Its streaming twin; tests leave it with a clean state."""
    return case_of(name).convert()


def reference_of(case: Case) -> nn.Module | None:
    """What the twin has to equal: nothing but itself where means over the clip were replaced."""
    return None if "time_pooling" in case.options else case.module


def out_times(case: Case) -> tuple[int | None, ...]:
    return case.out_time if isinstance(case.out_time, tuple) else (case.out_time,)


@some_networks("contract")
def test_contract(name: str):
    assert co.verify(twin_of(name), case_of(name).clip, reference=reference_of(case_of(name)), splits=4).passed


@LONG  # half a minute each, for what smaller networks show
@pytest.mark.parametrize("name", BIG)
def test_contract_of_big_networks(name: str):
    """On the shortest clip that has a window of two outputs behind three strides."""
    case = NETWORKS[name](frames=9 if name in STRIDED else 6)
    assert co.verify(case.convert(), case.clip, reference=reference_of(case), splits=2).passed


@some_networks("double")
def test_contract_in_double_precision(name: str):
    case = NETWORKS[name]().to(torch.float64)
    report = co.verify(case.convert(), case.clip, reference=reference_of(case), splits=4)
    assert report.passed
    assert "tolerance 1e-12" in report.subject


@every_network
def test_streams_in_the_module_s_own_layout(name: str):
    """By hand, as a user writes it: frames cut where the module has time, outputs joined where the module has it."""
    case, net = case_of(name), twin_of(name)
    want = as_windows(case.run() if reference_of(case) is not None else net(*case.inputs), out_times(case))
    rng = random.Random(3)
    splits = [[1] * case.frames + [0], [case.frames], *(random_split(case.frames, rng) for _ in range(1 if name in BIG else 3))]
    with torch.no_grad():
        assert_equal(as_windows(net(*case.inputs), out_times(case)), want, "forward")
        for sizes in splits:
            got, _ = stream(net, case.inputs, case.time_dims, out_times(case), sizes, lambda: rng.random() < 0.7)
            assert_equal(got, want, f"chunks {sizes}")
    net.clean_state()


@pytest.mark.parametrize("name", ANY_LENGTH)
def test_clips_of_other_lengths(name: str):
    """What an example of one length was captured of holds for others, also for the shortest, and for a single row."""
    case, net = case_of(name), twin_of(name)
    for frames, batch in ((case.frames + 3 * case.multiple, 3), (2 * case.frames, 1), (case.frames - case.multiple, 2)):
        inputs = case.clips(frames, batch)
        want = listed(case.run(*inputs))
        with torch.no_grad():
            assert_equal(listed(net(*inputs)), want, f"forward on {frames} frames")
            got, _ = stream(net, inputs, case.time_dims, out_times(case), [5, *[1] * (frames - 5), 0], lambda: True)
        assert_equal(got, want, f"a stream of {frames} frames")
    net.clean_state()


@pytest.mark.parametrize("name", CLIP_LEVEL)
def test_outputs_of_a_clip_are_those_of_windows(name: str):
    """The last output for the example is the module's; a longer clip has more windows, on dim 2."""
    case, net = case_of(name), twin_of(name)
    want = case.run()
    batch, classes = want.shape
    with torch.no_grad():
        assert net(*case.inputs).shape == want.shape
        last = net.forward_steps(*case.inputs, pad_end=True)
        assert_equal(last[:, :, -1], want, "the last output")
        net.clean_state()
        longer = case.clips(case.frames + 2 * int(net.timing.stride))
        windows = net(*longer)
        assert windows.shape == (batch, classes, 3)
        sizes = [*[1] * (longer[0].shape[net.time_dim]), 0]
        got, counts = stream(net, longer, case.time_dims, (None,), sizes, lambda: True)
        assert_equal(got, [windows], "a stream of three windows")
        single = net.timing.delivered(longer[0].shape[net.time_dim])
        assert counts[-2] == single, "what came before the end"
    net.clean_state()


@pytest.mark.parametrize("name", STRIDED)
def test_long_streams_of_video(name: str):
    """Beyond what padding reaches: every step against the module's own layers on the whole clip, pooled over two outputs at a time."""
    case, net = case_of(name), twin_of(name)
    steps = net.delay + 2 * int(net.timing.stride) + 3
    (clip,) = case.clips(steps)
    trunk = nn.Sequential(*(getattr(case.module, part) for part in ("stem", "layer1", "layer2", "layer3", "layer4")))
    with torch.no_grad():
        pooled = trunk(clip).mean((3, 4)).unfold(2, 2, 1).mean(3)
        want = case.module.get_submodule("fc")(pooled.transpose(1, 2)).transpose(1, 2)
        got, counts = stream(net, (clip,), (2,), (None,), [1] * steps, lambda: True, end=False)
    assert [counts.index(n) for n in (1, 2, 3)] == [net.delay + 8 * i for i in range(3)]
    assert_equal(got, [want[:, :, :3]], "steps")
    net.clean_state()


def test_windows_are_the_module_s_clips():
    """Where nothing but the pooling looks across frames, each window is the module on that clip."""
    case, net = case_of("resnet18_per_frame"), twin_of("resnet18_per_frame")
    (longer,) = case.clips(case.frames + 2)
    with torch.no_grad():
        windows = net(longer)
        for j in range(3):
            assert_equal(windows[:, :, j], case.module(longer[:, :, j : j + case.frames]), f"window {j}")


@pytest.mark.parametrize("name", TIMINGS)
def test_timing(name: str):
    """The numbers that a person computes from kernels, strides and paddings."""
    field, delay, stride = TIMINGS[name]
    net = twin_of(name)
    assert (net.delay, net.timing.stride) == (delay, stride)
    if field is None:
        assert net.unbounded_memory
    else:
        assert not net.unbounded_memory
        assert net.receptive_field == field


@pytest.mark.parametrize("name", ["tcn_causal", "wavenet", "causal_transformer"])
def test_causal_networks_answer_at_once(name: str):
    case, net = case_of(name), twin_of(name)
    with torch.no_grad():
        first = net.forward_step(*(x.select(d, 0) for x, d in zip(case.inputs, case.time_dims) if d is not None))
    net.clean_state()
    assert_equal(first, case.run().select(out_times(case)[0], 0), "the first output")


# ---- weights ------------------------------------------------------------------------------------------------------------


@every_network
def test_weights_are_the_module_s_own(name: str):
    case, net = case_of(name), twin_of(name)
    mine, theirs = net.state_dict(), case.module.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    assert parameters.keys() == dict(case.module.named_parameters()).keys()
    assert all(parameters[n] is p for n, p in case.module.named_parameters())
    assert all(buffers[n] is b for n, b in case.module.named_buffers() if n in theirs)
    net.load_state_dict(theirs)


@some_networks("training")
def test_training_the_module_changes_the_twin(name: str):
    case = NETWORKS[name]()
    net = case.convert()
    before = listed(net(*case.inputs))
    optimizer = torch.optim.SGD(case.module.parameters(), lr=0.05)
    torch.stack([y.square().mean() for y in listed(case.module(*case.inputs))]).sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = listed(net(*case.inputs))
        assert any(float((a - b).abs().max()) > 1e-4 for a, b in zip(after, before)), "the step was too small to tell"
        if reference_of(case) is not None:
            assert_equal(after, listed(case.run()), "after a step of training")
            got, _ = stream(net, case.inputs, case.time_dims, out_times(case), [*[1] * case.frames, 0], lambda: True)
            assert_equal(got, as_windows(case.run(), out_times(case)), "a stream after a step of training")


@some_networks("copy")
def test_a_copy_has_weights_of_its_own(name: str):
    case = NETWORKS[name]()
    net = case.convert(copy=True)
    before = listed(net(*case.inputs))
    assert list(net.state_dict()) == list(case.module.state_dict())
    shared = {id(t) for t in (*case.module.parameters(), *case.module.buffers())}
    assert not [n for n, t in (*net.named_parameters(), *net.named_buffers()) if id(t) in shared]
    with torch.no_grad():
        for tensor in (*case.module.parameters(), *case.module.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(0.5).add_(0.1)
    assert_equal(listed(net(*case.inputs)), before, "the copy, after the module has changed")


@some_networks("left", names=list(NETWORKS))
def test_the_module_is_left_as_it_was(name: str):
    case = NETWORKS[name]()
    case.module.train()
    case.module.eval()
    next(case.module.parameters()).requires_grad_(False)
    state = torch.random.get_rng_state()

    def seen() -> dict[str, Any]:
        return {
            path: (
                type(m),
                m.training,
                {k: v for k, v in m.__dict__.items() if not k.startswith("_")},
                sorted(m.__dict__),
                {k: (id(p), p._version, p.requires_grad, p.grad) for k, p in m._parameters.items() if p is not None},
                {k: (id(b), b._version, b.clone()) for k, b in m._buffers.items() if b is not None},
                [len(hooks) for k, hooks in sorted(m.__dict__.items()) if k.endswith("_hooks")],
            )
            for path, m in case.module.named_modules()
        }

    before = seen()
    outputs = listed(case.run())
    net = case.convert()
    with torch.no_grad():
        stream(net, case.inputs, case.time_dims, out_times(case), [1, 2, case.frames - 3], lambda: True)
    after = seen()
    assert before.keys() == after.keys()
    for path, (kind, training, plain, names, parameters, buffers, hooks) in before.items():
        new = after[path]
        assert (kind, training, names, parameters, hooks) == (*new[:2], new[3], new[4], new[6]), path
        assert buffers.keys() == new[5].keys()
        assert all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(buffers.values(), new[5].values())), path
        assert plain.keys() == new[2].keys()
        assert all(plain[k] is new[2][k] or plain[k] == new[2][k] for k in plain), path
    assert all(torch.equal(a, b) for a, b in zip(outputs, listed(case.run())))
    assert torch.equal(state, torch.random.get_rng_state()), "the conversion draws random numbers"
    assert not net.training
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in case.module.parameters()]


# ---- copies -------------------------------------------------------------------------------------------------------------


@some_networks("copies")
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"])
def test_copies_stream_on(name: str, duplicate: Any):
    """A copy in mid-stream goes on as its original does, with weights of its own."""
    case = NETWORKS[name]()
    net = case.convert()
    half = case.frames // 2
    early = [x if d is None else x.narrow(d, 0, half) for x, d in zip(case.inputs, case.time_dims)]
    late = [x if d is None else x.narrow(d, half, case.frames - half) for x, d in zip(case.inputs, case.time_dims)]
    with torch.no_grad():
        net.forward_steps(*early)
        twin = duplicate(net)
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in case.module.parameters()}
        want = net.forward_steps(*late, pad_end=True)
        for p in case.module.parameters():
            p.zero_()
        assert_equal(listed(twin.forward_steps(*late, pad_end=True)), listed(want), "the copy")


# ---- what people see ----------------------------------------------------------------------------------------------------


@every_network
def test_it_prints_as_a_table(name: str):
    case = NETWORKS[name]()
    table = str(twin_of(name))
    torch.stack([y.sum() for y in listed(case.module(*case.inputs))]).sum().backward()  # some layers are there for nothing
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, nn.LSTM, nn.GRU)
    found = {path: m for path, m in case.module.named_modules() if isinstance(m, layers)}
    paths = [path for path, m in found.items() if any(p.grad is not None for p in m.parameters())]
    assert paths
    assert not [path for path in paths if path not in table]
    assert len(table.splitlines()) > len(paths)


@small_networks
def test_the_networks_tell_right_from_wrong(name: str):
    """Of this file's inputs: outputs depend on the order of frames and on the row, are neither flat nor huge, and biases are there."""
    case = case_of(name)
    flipped = [x if d is None else x.flip(d) for x, d in zip(case.inputs, case.time_dims)]
    for y, z, time in zip(listed(case.run()), listed(case.run(*flipped)), out_times(case)):
        assert 0.01 < float(y.std()) < 30
        assert float((y[0] - y[1]).abs().max()) > 0.01
        other = z if time is None else z.flip(time)
        assert float((y - other).abs().max()) > 0.01, "a network that is the same in both directions of time"
    assert case.frames > 5
    assert all(float(p.detach().abs().max()) > 0.01 for p in case.module.parameters())
