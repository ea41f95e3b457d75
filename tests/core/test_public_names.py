"""What an editor offers after ``net.``: names for users, names that layers define, and nothing else without an underscore."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import continual as co

USERS = """
    build_from call_mode clean_state delay detach_state forward_step forward_steps get_state init_state is_valid new_stream padding
    receptive_field set_state step step_size steps stride time_dim timing unbounded_memory warm_up windows
"""
LAYERS = """
    advance advance_step count counts_inputs dummy_value extra_ops has_products io_layout kind macs_of_clip macs_per_output open part
    plan program recount runs_kernel
"""  # what the class of a layer defines or calls
TOOLS = "qconfig accumulate_flops start_flops_count"  # by which torch.ao.quantization (refused there) and ptflops take a module
OWN = {  # a module, the torch.nn module that it stands for, and its further names
    "Recurrence": (co.Recurrence(), nn.Module(), "initial_state macs recur recur_chunk"),
    "SlidingWindow": (
        co.SlidingWindow(),
        nn.Module(),
        "arrange check cold enter enter_step fill fill_value kept nothing over_pieces over_time over_time_step set_window taps windows_of",
    ),
    "Sequential": (co.Sequential(nn.ReLU()), nn.Sequential(), ""),
    "Parallel": (
        co.Parallel(nn.ReLU(), nn.ReLU()),
        nn.Sequential(),
        "auto_delay branches copies merge names num_streams split",
    ),
    "Delay": (co.Delay(2), nn.Module(), "auto_shrink depth first temporal_fill waits"),
    "Linear": (
        co.Linear(2, 2, channel_dim=1),
        nn.Linear(2, 2),
        "channel_dim check clip configure local_step norm_channels out scaled_weight",
    ),
    "GRU": (co.GRU(2, 2), nn.GRU(2, 2), "configure over_clip over_step weights"),
}
CONVERTED = """
fit folded frames_per_step lengths modes name notes operation_graph output_batch_dims output_time_dims running table_of time_dims
"""


EVERYWHERE = set(f"{USERS} {LAYERS} {TOOLS}".split())


def public(module: nn.Module) -> set[str]:
    return {name for name in dir(module) if not name.startswith("_")}


def test_a_streaming_module():
    assert public(co.CoModule()) - public(nn.Module()) == EVERYWHERE


@pytest.mark.parametrize("name", OWN)
def test_layers_and_containers(name: str):
    module, base, names = OWN[name]
    assert public(module) - public(base) - EVERYWHERE == set(names.split())


def test_a_converted_network():
    net = co.continual(nn.Sequential(nn.Conv1d(2, 2, 3), nn.ReLU()).eval(), torch.zeros(2, 2, 9))
    names = CONVERTED.split()
    assert public(net) - public(nn.Module()) - EVERYWHERE == set(names)
