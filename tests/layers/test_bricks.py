"""Norms, MLPs and heads against their formulas, in the dtypes in which they are used."""

import pytest
import torch
from torch.nn.functional import gelu, silu

from griffin_lm.layers.embedding import Embedding, Head, TiedHead
from griffin_lm.layers.mlp import GatedMLP
from griffin_lm.layers.norm import RMSNorm


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


@pytest.mark.parametrize("offset", (True, False))
def test_a_norm_starts_as_the_identity_of_unit_rows(offset):
    norm = RMSNorm(6, 1e-6, offset)
    norm.initialise()
    x = torch.randn(4, 6)
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(norm(x), x)


def test_gemmas_norm_multiplies_in_fp32_and_llamas_in_the_dtype_of_x():
    x = torch.randn(50, 16, dtype=torch.bfloat16)
    wide = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5)
    gemma, llama = (randomised(RMSNorm(16, 1e-5, offset)).bfloat16() for offset in (True, False))
    assert torch.equal(gemma(x), (wide * (1 + gemma.scale.float())).bfloat16())
    assert torch.equal(llama(x), wide.bfloat16() * llama.scale)


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("kind", ("geglu", "swiglu"))
def test_an_mlp_is_its_formula(kind, bias):
    mlp = randomised(GatedMLP(6, 10, kind, bias).double())
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    act = silu if kind == "swiglu" else lambda x: gelu(x, approximate="tanh")

    def affine(linear, x):
        y = x @ linear.weight.T
        return y + linear.bias if bias else y

    expected = affine(mlp.down, act(affine(mlp.gate, x)) * affine(mlp.up, x))
    torch.testing.assert_close(mlp(x), expected)
    assert len(list(mlp.parameters())) == (6 if bias else 3)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16, torch.float16))
def test_gemmas_factor_is_rounded_to_the_dtype_of_the_weights(dtype):
    embed = randomised(Embedding(7, 40, True, "weights")).to(dtype)
    expected = torch.tensor(40**0.5, dtype=dtype)
    assert embed.factor == float(expected)
    tokens = torch.tensor([[3, 0]])
    assert torch.equal(embed(tokens), embed.weight[tokens] * expected)


def test_the_embeddings_factor_is_rounded_to_bfloat16_and_stays_out_of_the_head():
    embed = randomised(Embedding(7, 2560, scaled=True))
    tokens = torch.tensor([[3, 0]])
    assert torch.equal(embed(tokens), embed.weight[tokens] * 50.5)
    x = torch.randn(2, 2560)
    torch.testing.assert_close(TiedHead(embed, 0.0)(x), x @ embed.weight.T)


@pytest.mark.parametrize("cap", (0.0, 4.0))
def test_a_head_of_its_own_is_capped_like_a_tied_one(cap):
    embed, head = randomised(Embedding(7, 5, scaled=False)), Head(7, 5, cap)
    with torch.no_grad():
        head.weight.copy_(embed.weight)
    x = torch.randn(3, 5)
    assert torch.equal(head(x), TiedHead(embed, cap)(x))
    assert head(x).abs().max() <= (cap or torch.inf)
    assert list(TiedHead(embed, cap).parameters()) == []


def test_a_tied_head_follows_its_embedding_to_another_dtype_and_through_a_copy():
    import copy

    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = randomised(Embedding(7, 4, scaled=False))
            self.head = TiedHead(self.embed, 0.0)

    pair = Pair()
    twin = copy.deepcopy(pair).to(torch.float64)
    assert twin.head.weight is twin.embed.weight and twin.head.weight.dtype == torch.float64
    assert pair.head.weight is pair.embed.weight and pair.head.weight.dtype == torch.float32
