"""Mixers of transformers become layers of this library: stand-ins of the same names and formulas, and the real ones where they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from gallery import packages
from tests.layers import mixers
from tests.layers.linear_recurrences import as_trained

Run = Callable[[Any, Tensor], Tensor]
STANDING_IN: dict[str, tuple[Callable[[], nn.Module], type, Run]] = {
    "MambaMixer": (mixers.MambaMixer, co.Mamba, lambda m, x: m(x)),
    "FalconMambaMixer": (mixers.FalconMambaMixer, co.Mamba, lambda m, x: m(x)),
    "Mamba2Mixer": (mixers.Mamba2Mixer, co.Mamba2, lambda m, x: m(x)),
    "BambaMixer": (mixers.BambaMixer, co.Mamba2, lambda m, x: m(x)),
    "GraniteMoeHybridMambaLayer": (mixers.GraniteMoeHybridMambaLayer, co.Mamba2, lambda m, x: m(x)),
    "RecurrentGemmaRglru": (mixers.RecurrentGemmaRglru, co.RGLRU, lambda m, x: m(x, torch.arange(x.shape[1])[None])),
    "RwkvSelfAttention": (mixers.RwkvSelfAttention, co.RWKV, lambda m, x: m(x)[0]),
}


def made(name: str) -> Any:
    torch.manual_seed(2)
    return as_trained(STANDING_IN[name][0]())


@pytest.mark.parametrize("name", STANDING_IN)
def test_by_the_name_of_its_class(name: str):
    module, clip = made(name), torch.randn(3, 23, 6)
    net = co.continual(module)
    assert type(net) is STANDING_IN[name][1]
    assert net.state_dict().keys() == module.state_dict().keys()
    assert not {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in module.parameters()}
    assert co.verify(net, clip, reference=lambda x: STANDING_IN[name][2](module, x), effort="quick")
    fresh = copy.deepcopy(net)
    fresh.load_state_dict(as_trained(module).state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fresh(clip), STANDING_IN[name][2](module, clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", STANDING_IN)
def test_keeps_what_a_module_is(name: str):
    module = made(name).double().train()
    next(module.parameters()).requires_grad_(False)
    net = co.continual(module)
    assert net.training
    assert [p.requires_grad for p in net.parameters()].count(False) == 1
    assert {p.dtype for p in net.parameters()} == {torch.float64}


class Model(nn.Module):
    """A language model around mixers, which are called with all their arguments."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.take, self.mixer = nn.Linear(4, 6), mixer
        self.conv, self.give = nn.Conv1d(6, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.take(x)
        if isinstance(self.mixer, mixers.RwkvSelfAttention):
            y = y + self.mixer(y, state=None, use_cache=False)[0]
        else:
            y = y + self.mixer(hidden_states=y, cache=None, attention_mask=None)
        return self.give(self.conv(y.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("name", ["MambaMixer", "FalconMambaMixer", "Mamba2Mixer", "RwkvSelfAttention"])
def test_inside_a_model(name: str):
    torch.manual_seed(3)
    module, clip = Model(made(name)).eval(), torch.randn(2, 19, 4)
    net = co.continual(module, clip, time_dim=1)
    assert net.notes == (f"mixer: streams as {STANDING_IN[name][1].__name__}",)
    assert co.verify(net, clip, reference=module, effort="quick")
    with torch.no_grad():
        next(module.mixer.parameters()).add_(0.5)
        torch.testing.assert_close(net(clip), module(clip), atol=1e-5, rtol=1e-5)


def test_another_activation_is_not_taken_for_it():
    module = mixers.MambaMixer(activation="relu").eval()
    with pytest.raises(
        co.NotStreamable, match=r"MambaMixer: its parameters or its activation are not those.*co.continual\(module, clip"
    ):
        co.continual(module)
    module = mixers.MambaMixer()
    module.in_proj = nn.Sequential(module.in_proj)  # as adapters replace it
    with pytest.raises(co.NotStreamable, match="its parameters or its activation"):
        co.continual(module)


def test_a_mixer_of_another_version_is_not_taken_for_it():
    for change in (lambda m: delattr(m.norm, "group_size"), lambda m: setattr(m.norm, "group_size", 12)):
        module = mixers.Mamba2Mixer()
        change(module)
        with pytest.raises(co.NotStreamable, match="not those of the class as transformers 5 has it"):
            co.continual(module)


def test_a_subclass_that_computes_something_else_is_not_taken_for_it():
    class Other(mixers.MambaMixer):
        def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return -super().forward(hidden_states)

    with pytest.raises(co.NotStreamable, match="no streaming version of this class is known"):
        co.continual(Other())


# ---- the real ones --------------------------------------------------------------------------------------------------

WIDTH = 16
REAL: dict[str, tuple[str, dict[str, Any], str]] = {
    "MambaMixer": ("Mamba", {"state_size": 5, "use_bias": True, "num_hidden_layers": 1}, "mamba"),
    "FalconMambaMixer": ("FalconMamba", {"state_size": 5, "num_hidden_layers": 1}, "falcon_mamba"),
    "Mamba2Mixer": (
        "Mamba2",
        {"state_size": 5, "num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 8, "time_step_limit": (0.01, 0.5)},
        "mamba2",
    ),
    "RecurrentGemmaRglru": ("RecurrentGemma", {"lru_width": WIDTH, "num_attention_heads": 2}, "recurrent_gemma"),
    "RwkvSelfAttention": ("Rwkv", {"attention_hidden_size": 20}, "rwkv"),
}


@pytest.mark.skipif(packages.missing("transformers"), reason="transformers is not installed")
@pytest.mark.parametrize("name", REAL)
def test_the_modules_of_transformers(name: str):
    """In single precision; in double, as near as parts that they compute in float32 allow."""
    kind, options, file = REAL[name]
    config = packages.cls(f"transformers.{kind}Config")(hidden_size=WIDTH, **options)
    cls = packages.cls(f"transformers.models.{file}.modeling_{file}.{name}")
    torch.manual_seed(4)
    module = cls(config) if name == "RecurrentGemmaRglru" else cls(config, 0, *(() if name == "RwkvSelfAttention" else (False,)))
    for key, p in module.named_parameters():
        p.data = torch.randn_like(p) * (0.2 if "gate_weight" in key or p.ndim > 1 else 1)
    run, clip = STANDING_IN[name][2], torch.randn(2, 70, WIDTH)
    for dtype, allowed in ((torch.float32, 1e-5), (torch.float64, 1e-6), (torch.bfloat16, 4e-2)):
        module.to(dtype).eval()
        if name == "RecurrentGemmaRglru":
            module.recurrent_states = None
        net = co.continual(module)
        with torch.no_grad():
            x = clip.to(dtype)
            want = run(module, x)
            steps = torch.stack([net.forward_step(x[:, t]) for t in range(70)], 1)
            for got in (net(x), net.forward_steps(x) if not net.clean_state() else None, steps):
                assert (got - want).abs().max() <= allowed * max(1, want.abs().max()), dtype
