"""Modules whose operations or values can't be seen are refused in our words, with a remedy that works."""

import pytest
import torch
from torch import nn

import continual as co

CLIP = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(3))

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor"
)


class Net(nn.Module):
    def __init__(self, head=None):
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 6, 3), head or nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.conv(x).relu().transpose(1, 2)).transpose(1, 2)


def quantised(module):
    return torch.ao.quantization.quantize_dynamic(module.eval(), {nn.Linear, nn.LSTM}, dtype=torch.qint8)


def traced():
    return torch.jit.trace(nn.Linear(6, 5), torch.ones(2, 6))


def scripted():
    return torch.jit.script(nn.Linear(6, 5))


JIT = r"compiled by torch.jit.*load_state_dict\(scripted.state_dict\(\)\)"
QUANTISED = "quantised by torch.ao.quantization.*torchao.quantization.quantize_"
WITH_CLIP = {
    "a script": (lambda: torch.jit.script(Net().eval()), f"RecursiveScriptModule: it was {JIT}"),
    "a script inside": (lambda: Net(scripted()).eval(), rf"head \(RecursiveScriptModule\): it was {JIT}"),
    "a trace": (lambda: torch.jit.trace(Net().eval(), CLIP), f"TopLevelTracedModule: it was {JIT}"),
    "a trace inside": (lambda: Net(traced()).eval(), rf"head \(TopLevelTracedModule\): it was {JIT}"),
    "a quantised layer": (lambda: quantised(Net()), rf"head \(Linear\): it was {QUANTISED}"),
    "no weights": (lambda: Net().eval().to("meta"), r"conv \(Conv1d\): 'weight' is on the meta device.*assign=True"),
    "no weights inside": (lambda: Net(nn.Linear(6, 5, device="meta")).eval(), r"head \(Linear\): 'weight' is on the meta device"),
}
WITHOUT = {
    "a script": (lambda: torch.jit.script(nn.Sequential(nn.Conv1d(4, 4, 3))), f"RecursiveScriptModule: it was {JIT}"),
    "a script inside": (
        lambda: nn.Sequential(torch.jit.script(nn.Conv1d(4, 4, 3))),
        rf"0 \(RecursiveScriptModule\): it was {JIT}",
    ),
    "a quantised layer": (
        lambda: quantised(nn.Sequential(nn.Conv1d(4, 4, 3), nn.Linear(4, 4))),
        rf"1 \(Linear\): it was {QUANTISED}",
    ),
    "a quantised LSTM": (lambda: quantised(nn.Sequential(nn.LSTM(4, 4))), rf"0 \(LSTM\): it was {QUANTISED}"),
    "a compiled module": (
        lambda: torch.compile(nn.Sequential(nn.Conv1d(4, 4, 3)), backend="eager"),
        "torch.compile.*module._orig_mod",
    ),
}


@pytest.mark.parametrize("name", WITH_CLIP)
def test_with_a_clip(name):
    make, message = WITH_CLIP[name]
    with pytest.raises(co.NotStreamable, match=message):
        co.continual(make(), CLIP)


@pytest.mark.parametrize("name", WITHOUT)
def test_without_a_clip(name):
    make, message = WITHOUT[name]
    with pytest.raises(co.NotStreamable, match=message):
        co.continual(make())


def test_the_remedies_work():
    torch.manual_seed(0)
    script, model = torch.jit.script(Net().eval()), Net().eval()
    model.load_state_dict(script.state_dict())
    torch.testing.assert_close(co.continual(model, CLIP)(CLIP), script(CLIP), rtol=0, atol=1e-6)
    empty = Net().eval().to("meta")
    empty.load_state_dict(model.state_dict(), assign=True)
    torch.testing.assert_close(co.continual(empty, CLIP)(CLIP), script(CLIP), rtol=0, atol=1e-6)
    compiled = torch.compile(nn.Sequential(nn.Conv1d(4, 4, 3)), backend="eager")
    torch.testing.assert_close(co.continual(compiled._orig_mod)(CLIP), compiled(CLIP), rtol=0, atol=1e-6)


def test_a_clip_without_values():
    with pytest.raises(co.NotStreamable, match="Net: input 0 of the clip is on the meta device"):
        co.continual(Net().eval(), CLIP.to("meta"))


def test_a_network_without_weights_says_how_to_load_some():
    net = co.continual(nn.Sequential(nn.Conv1d(4, 4, 3, device="meta"))).eval()
    with pytest.raises(co.ShapeMismatch, match=r"0 \(Conv1d\): its weights are on the meta device.*load_state_dict"):
        net.forward_step(CLIP[:, :, 0])
    net.load_state_dict(nn.Sequential(nn.Conv1d(4, 4, 3)).state_dict(), assign=True)
    assert net.forward_steps(CLIP).shape == (3, 4, 10)


def test_parameters_made_in_inference_mode_are_refused_with_a_remedy_that_works():
    """The message was torch's, on requires_grad."""
    with torch.inference_mode():
        net = Net().eval()
    with pytest.raises(co.NotStreamable, match=r"conv \(Conv1d\): 'weight' was made under torch.inference_mode.*assign=True"):
        co.continual(net, CLIP)
    with torch.inference_mode():  # there it is taken
        inside = co.continual(net, CLIP)(CLIP)
    net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}, assign=True)
    torch.testing.assert_close(co.continual(net, CLIP)(CLIP), inside)
