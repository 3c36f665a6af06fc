"""Random weights have the spreads of the paper and of the published code."""

import math

import pytest
import torch
from torch.nn.functional import softplus

import griffin_lm as griffin
from griffin_lm.mixers import RGLRU, LocalAttention


def config(**changes):
    recurrent = {"width": 320, "heads": 4} | changes.pop("recurrent", {})
    attention = LocalAttention(heads=4, head_dim=64, window=8)
    return griffin.ModelConfig(
        vocab=500,
        width=256,
        mlp_width=768,
        layers=3,
        pattern=(RGLRU(**recurrent), attention),
        **changes,
    )


def std(model, name):
    return dict(model.named_parameters())[name].std().item()


@pytest.mark.parametrize(
    "name, expected",
    (
        ("embed.weight", 256**-0.5),
        ("layers.0.mixer.linear_x.weight", 256**-0.5),
        ("layers.0.mixer.linear_out.weight", math.sqrt(2 / 3 / 320)),
        ("layers.0.mixer.cell.a_gate.w", 80**-0.5),
        ("layers.0.mixer.cell.x_gate.w", 80**-0.5),
        ("layers.0.mixer.conv.w", 0.05),
        ("layers.1.mixer.q.weight", 256**-0.5),
        ("layers.1.mixer.out.weight", math.sqrt(2 / 3 / 256)),
        ("layers.0.mlp.gate.weight", 256**-0.5),
        ("layers.0.mlp.up.weight", 256**-0.5),
        ("layers.0.mlp.down.weight", math.sqrt(2 / 3 / 768)),
    ),
)
def test_spreads_are_those_of_deepminds_torch_code(name, expected):
    assert std(griffin.build(config()), name) == pytest.approx(expected, rel=0.05)


def test_spreads_of_its_jax_code_are_a_switch():
    model = griffin.build(config(mlp_init="doubled", recurrent={"gate_init": "full"}))
    assert std(model, "layers.0.mlp.gate.weight") == pytest.approx(512**-0.5, rel=0.05)
    assert std(model, "layers.0.mixer.cell.a_gate.w") == pytest.approx(320**-0.5, rel=0.05)


def test_biases_and_norms_are_zero():
    zero = ("bias", "scale", "conv.b", "gate.b")
    for name, parameter in griffin.build(config()).named_parameters():
        assert name.endswith(zero) == bool((parameter == 0).all()), name


def decays(kind):
    recurrent = {"width": 4000, "heads": 4, "lambda_init": kind}
    model = griffin.build(config(recurrent=recurrent))
    return torch.exp(-softplus(model.layers[0].mixer.cell.Lambda.detach().double()))


def test_the_codes_decay_squared_lies_evenly_in_its_ring():
    squared = decays("code") ** 2
    even = (squared - 0.81) / (0.998001 - 0.81)
    assert even.min() > -1e-4 and even.max() < 1 + 1e-4
    assert even.quantile(torch.tensor([0.25, 0.5, 0.75]).double()).tolist() == pytest.approx(
        [0.25, 0.5, 0.75], abs=0.04
    )


def test_the_papers_decay_to_the_power_of_c_lies_evenly_in_its_ring():
    even = (decays("paper") ** 8 - 0.9) / 0.099
    assert even.min() > -1e-3 and even.max() < 1 + 1e-3
    assert even.mean().item() == pytest.approx(0.5, abs=0.03)


def test_a_seed_gives_the_same_weights_whatever_the_dtype():
    wide, narrow = (griffin.build(config(), 7, dtype=d) for d in (torch.float32, torch.bfloat16))
    for mine, exact in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert torch.equal(mine, exact.bfloat16())
    other = griffin.build(config(), 8)
    assert not torch.equal(other.embed.weight, wide.embed.weight)
