"""Streams of exported files, and compiled code that is kept on disk: servers that compile nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import continual as co
from tests.contract import assert_equal
from tests.long import one_in
from tests.programs.test_stream_rows import NETWORKS, causal, present, streams_of


@pytest.mark.parametrize("format", ["onnx", pytest.param("pt2", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["strided", "gru"])
def test_an_exported_file_serves_streams(format: str, name: str, tmp_path: Any):
    """Without a compiler. Streams pause, end, are snapshot, and go on in another batch."""
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `onnx`")
    net = NETWORKS[name]()
    step = torch.zeros(1, 3, dtype=torch.float64)
    runner = co.load(co.export(net, step, tmp_path / f"net.{format}"))
    streams, other = co.StreamBatch(runner, capacity=6, shards=2), co.StreamBatch(runner, capacity=3)
    streams.warm_up()
    ids, clips = [streams.open() for _ in range(5)], torch.randn(5, 3, 14, dtype=torch.float64)
    found: dict[int, list[Tensor]] = {i: [] for i in ids}
    steps = dict.fromkeys(ids, 0)
    for turn in range(30):
        chosen = [i for i in ids if (turn + i) % 3 and steps[i] < 14 - i]
        if not chosen:
            continue
        frames = torch.stack([clips[i, :, steps[i]] for i in chosen])
        for i, outs in zip(chosen, present(*streams.step_rows(streams.rows(chosen), frames)), strict=True):
            found[i] += outs
            steps[i] += 1
    moved = streams.snapshot_rows(streams.rows(ids[:3]))
    there = [other.open() for _ in range(3)]
    other.restore_rows(other.rows(there), moved)
    for batch_, own in ((other, dict(zip(there, ids[:3]))), (streams, {i: i for i in ids[3:]})):
        for i, j in own.items():
            rest = batch_.flush(i)
            batch_.finish(i)
            ends = []
            while batch_.ending:
                ends += [] if (y := batch_.step({}).get(i)) is None else list(y.unbind(1))
            assert len(ends) == (0 if rest is None else rest.shape[1])
            whole = torch.stack([*found[j], *ends], 1)
            assert_equal(whole, net(clips[j : j + 1, :, : 14 - j])[0], f"stream {j}")
    with pytest.raises(co.StateMismatch, match="other weights|another network"):
        streams.restore_rows(streams.rows(ids[:3]), streams_of(net, 3).snapshot_rows([]))
    with pytest.raises(TypeError, match="knows its steps"):
        co.StreamBatch(runner, step)


def test_what_a_batch_can_not_be_made_of(tmp_path: Any):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `onnx`")
    step = torch.zeros(2, 3, dtype=torch.float64)
    fixed = co.load(co.export(causal(), step, tmp_path / "fixed.onnx", batch=2, flush=False))
    with pytest.raises(ValueError, match="exported for 2 rows, and each shard has 4"):
        co.StreamBatch(fixed, capacity=4)
    streams = co.StreamBatch(fixed, capacity=4, shards=2)
    stream = streams.open()
    streams.step({stream: step[0]})
    with pytest.raises(co.ExportError, match="exported with flush=False"):
        streams.finish(stream)
    assert stream in streams
    with pytest.raises(TypeError, match="takes an example step"):
        co.StreamBatch(causal())


CACHED = """
import sys, time, torch, continual as co
from continual.programs.backends import package_cache
made = []
keep = package_cache._keep
package_cache._keep = lambda *a: (made.append(1), keep(*a))
from tests.programs.test_stream_rows import causal, streams_of
torch.manual_seed(1)
streams = co.StreamBatch(causal(), torch.zeros(1, 3).double(), 2, backend="aot")
streams.warm_up()
stream = streams.open()
x = torch.randn(3, 12).double()
print(len(made), [round(float(y.sum()), 12) for t in range(12) if (y := streams.step({stream: x[:, t]})[stream]) is not None])
"""


@one_in(3)
def test_another_process_compiles_nothing_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    outs = [subprocess.run([sys.executable, "-c", CACHED], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    (first, one), (second, two) = (o.strip().split(" ", 1) for o in outs)
    assert (first, second) == ("1", "0")
    assert one == two
    damaged = next((tmp_path / "continual").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:1000])
    done = subprocess.run([sys.executable, "-c", CACHED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"1 {one}"
