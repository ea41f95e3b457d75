"""`Embedding`: streams of tokens, against `nn.Embedding`."""

import random

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, random_split, run

SHAPES = {"tokens": (3, 1, 17), "two tokens a step": (2, 1, 11, 2), "planes of tokens": (2, 1, 9, 3, 4)}
OPTIONS = {
    "plain": {},
    "padding_idx": {"padding_idx": 3},
    "padding_idx from the end": {"padding_idx": -1},
    "sparse": {"sparse": True},
}


def by_torch(module: nn.Embedding, tokens: Tensor) -> Tensor:
    return module(tokens[:, 0]).movedim(-1, 1)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embedding(shape: str, options: str, dtype: torch.dtype):
    module = nn.Embedding(10, 5, dtype=dtype, **OPTIONS[options])
    net, clip = co.continual(module), torch.randint(0, 10, SHAPES[shape])
    assert type(net) is co.Embedding
    assert repr(net) == repr(module)
    assert list(net.state_dict()) == list(module.state_dict())
    for tokens in (clip, clip.int()):
        assert torch.equal(net(tokens), by_torch(module, tokens))
        assert co.verify(net, tokens, lambda x: by_torch(module, x)).passed
        assert_equal(run(net, tokens, random_split(clip.shape[2], random.Random(0)), lambda: True), net(tokens))


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients(options: str):
    """Through steps as through the clip; rows of `padding_idx` have none, sparse ones stay sparse."""
    module = nn.Embedding(10, 5, dtype=torch.float64, **OPTIONS[options])
    net = co.Sequential(module, nn.Conv1d(5, 4, 3, padding=1).double())
    clip = torch.randint(0, 10, (3, 1, 17))
    found = []
    for run_it in (net, lambda x: run(net, x, [1, 2, 1, 5, 1, 7, 0], lambda: True)):
        net.zero_grad()
        run_it(clip).pow(2).sum().backward()
        grad = net[0].weight.grad
        assert grad.is_sparse == ("sparse" in OPTIONS[options])
        found.append(grad.to_dense())
    assert_equal(*found, "gradients")
    if "padding_idx" in OPTIONS[options]:
        assert not found[0][OPTIONS[options]["padding_idx"]].any()


def test_in_a_network():
    net = co.Sequential(
        co.ConstantPad1d((2, 0), 9),
        nn.Embedding(10, 6, padding_idx=9),
        nn.Conv1d(6, 6, 3),
        nn.ReLU(),
        co.Linear(6, 4, channel_dim=1),
    )
    clip = torch.randint(0, 9, (3, 1, 21))
    assert net.delay == 0
    assert co.verify(net, clip).passed
    assert co.verify(net.double(), clip).passed


@pytest.mark.parametrize("token", [10, -1, 10**6])
def test_tokens_out_of_range(token: int):
    net = co.Sequential(co.Delay(1), nn.Embedding(10, 4), nn.Conv1d(4, 4, 3))
    clip = torch.randint(0, 10, (2, 1, 9))
    wanted = net(clip)
    bad = clip.clone()
    bad[1, 0, 4] = token
    net.forward_steps(clip[:, :, :4])
    before = net.get_state()
    for call in (net.forward_steps, lambda x: [net.forward_step(s) for s in x.unbind(2)]):
        with pytest.raises(IndexError, match=r"tokens are 0 … 9, got"), torch.no_grad():
            call(bad[:, :, 4:])
        net.set_state(before)
    with pytest.raises(IndexError, match="tokens are 0"):
        net(bad)
    net.clean_state()
    out = net.forward_steps(clip[:, :, :4])
    with pytest.raises(IndexError):
        net.forward_steps(bad[:, :, 4:7])
    rest = net.forward_steps(clip[:, :, 4:], pad_end=True)
    assert_equal(torch.cat([t for t in (out, rest) if t is not None], 2), wanted)


REFUSED = {
    "max_norm": ({"max_norm": 1.0}, r"max_norm=1.0.*rewrites its weights.*embedding\(torch.arange\(embedding.num_embeddings\)\)"),
    "scale_grad_by_freq": ({"scale_grad_by_freq": True}, r"depends on the chunks.*embedding.scale_grad_by_freq = False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    options, message = REFUSED[name]
    with pytest.raises(co.NotStreamable, match=f"(?s)0.1 \\(Embedding\\): .*{message}"):
        co.continual(nn.Sequential(nn.Sequential(nn.Identity(), nn.Embedding(10, 4, **options))))
    with pytest.raises(co.NotStreamable, match=f"(?s){message}"):
        co.Embedding(10, 4, **options)


def test_the_remedy_for_max_norm_gives_the_same_outputs():
    module = nn.Embedding(10, 4, max_norm=0.7)
    tokens = torch.randint(0, 10, (2, 1, 30))
    wanted = by_torch(module, tokens)
    with torch.no_grad():
        module(torch.arange(module.num_embeddings))
    module.max_norm = None
    assert_equal(co.continual(module)(tokens), wanted)


def test_bags_are_refused():
    with pytest.raises(co.NotStreamable, match=r"1 \(EmbeddingBag\): a bag.*co.Embedding, then"):
        co.continual(nn.Sequential(nn.Identity(), nn.EmbeddingBag(10, 4)))


BAD = {
    "clip (B, T)": (lambda net: net(torch.zeros(2, 5, dtype=torch.long)), r"give tokens.unsqueeze\(1\)"),
    "step (B,)": (lambda net: net.forward_step(torch.zeros(2, dtype=torch.long)), r"a step has the shape \(B, C, \*S\)"),
    "step of several": (
        lambda net: net.forward_step(torch.zeros(2, 5, dtype=torch.long)),
        r"one token a step \(B, 1, \*S\), got \(2, 5\)",
    ),
    "clip of several": (lambda net: net(torch.zeros(2, 3, 5, dtype=torch.long)), "one token a step"),
    "floats": (lambda net: net.forward_step(torch.zeros(2, 1)), "int64 or int32, got torch.float32"),
    "booleans": (lambda net: net(torch.zeros(2, 1, 4, dtype=torch.bool)), "int64 or int32, got torch.bool"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str):
    use, message = BAD[name]
    net = co.Embedding(10, 4)
    with pytest.raises(co.ShapeMismatch, match=message):
        use(net)
    assert net.get_state() is None


def test_what_torch_does_after_an_embedding_is_not_mistaken():
    """In torch features come last, here second: what acts on the last dimension is refused, not run over time."""
    for after in (nn.Linear(4, 3), nn.LayerNorm(4), nn.Softmax(-1)):
        net = co.continual(nn.Sequential(nn.Embedding(10, 4), after))
        with pytest.raises(co.NotStreamable, match="time"):
            net.forward_step(torch.zeros(2, 1, dtype=torch.long))


def test_from_pretrained():
    weight = torch.randn(10, 4)
    net = co.Embedding.from_pretrained(weight, padding_idx=2)
    assert type(net) is co.Embedding
    assert not net.weight.requires_grad
    assert torch.equal(net(torch.tensor([[[2, 5]]])), weight[[2, 5]].t().unsqueeze(0))
    with pytest.raises(TypeError):
        co.Embedding(10, 4, channels=3)
