"""Attention that gives whole windows has the same layout in programs and stream batches as in eager steps."""

from __future__ import annotations

import pytest
import torch

import continual as co

torch.manual_seed(4)
CLIP = torch.randn(2, 8, 7)  # (B, E, T)
LAYOUTS = {"time first": {"batch_first": False}, "batch first": {"batch_first": True}, "channels": {"embed_dim_second": True}}


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_of_attention(layout: str, chunk: int):
    net = co.RetroactiveMultiheadAttention(8, 2, sequence_len=3, **LAYOUTS[layout]).eval()
    clip = {0: CLIP.permute(2, 0, 1), 1: CLIP.transpose(1, 2), 2: CLIP}[net.time_dim]
    program = co.compile(net, CLIP[:, :, 0], backend="eager", chunk=chunk)
    state, found = program.init_state(), []
    with torch.no_grad():
        expected = net.forward_steps(clip, update_state=False)
        for first in range(0, 7 // chunk * chunk, chunk):
            y, valid, state = program(clip.narrow(net.time_dim, first, chunk), state)
            found.append(y.narrow(net.time_dim, chunk - int(valid[0].sum()), int(valid[0].sum())))
        got = torch.cat(found, net.time_dim)
        torch.testing.assert_close(got, expected.narrow(net.time_dim, 0, got.shape[net.time_dim]))
        steps = [y for t in range(7) if (y := net.forward_step(CLIP[:, :, t])) is not None]
        torch.testing.assert_close(torch.stack(steps, net.time_dim), expected)


def test_windows_of_attention_in_a_batch_of_streams():
    net = co.RetroactiveMultiheadAttention(8, 2, sequence_len=3, batch_first=True).eval()
    batch = co.StreamBatch(net, CLIP[:1, :, 0], capacity=2, backend="eager")
    stream = batch.open()
    with torch.no_grad():
        for t in range(5):
            expected, got = net.forward_step(CLIP[:1, :, t]), batch.step({stream: CLIP[0, :, t]})[stream]
            assert (expected is None) == (got is None)
            if got is not None:
                torch.testing.assert_close(got.reshape(expected.shape), expected)
