"""`co.onnx.OnnxWrapper`: a step as a function, for an export of one's own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import continual as co


@torch.no_grad()
def test_one_step_as_a_function_for_an_export_of_ones_own(tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = co.Sequential(co.Residual(co.Conv1d(2, 2, 3, padding=1)), co.GRU(2, 3), co.MaxPool1d(3, 1, 1)).eval()
    step = co.onnx.OnnxWrapper(net)
    with pytest.raises(co.ExportError, match="run a step first"):
        assert step.state_input_names
    clip, state, ys = torch.randn(2, 2, 9), [], []
    for x in clip.unbind(2):
        y, *state = step(x, *state)
        ys.append(y)
    torch.testing.assert_close(torch.stack(ys[net.delay :], 2), net(clip)[:, :, : 9 - net.delay])
    with pytest.raises(co.ExportError, match="Sequential has 5 state tensors, got 1"):
        step(clip[:, :, 0], state[0])
    assert step(clip[:1, :, 0])[0].shape == (1, 3)  # any number of rows
    names = ["frame", *step.state_input_names], ["score", *step.state_output_names]
    path = tmp_path / "own.onnx"
    with warnings.catch_warnings():  # of torch's exporter
        warnings.simplefilter("ignore")
        torch.onnx.export(step, (clip[:, :, 0], *state), path, input_names=names[0], output_names=names[1], verbose=False)
    session = runtime.InferenceSession(path)
    assert [i.name for i in session.get_inputs()] == names[0]
    assert [o.name for o in session.get_outputs()] == names[1]
    running = [torch.zeros_like(t).numpy() for t in state]
    for x, y in zip(clip.unbind(2), ys, strict=True):
        feed = dict(zip(names[0], [x.numpy(), *running], strict=True))
        found, *running = session.run(None, feed)
        torch.testing.assert_close(torch.from_numpy(found), y)
