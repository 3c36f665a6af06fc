"""Configurations: every field is felt, nothing unknown is accepted, presets have their sizes."""

from dataclasses import fields, replace

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import ConfigError
from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import Fingerprint

TINY = griffin.ModelConfig(
    vocab=40,
    width=16,
    mlp_width=24,
    layers=3,
    logit_cap=5.0,
    pattern=(RGLRU(width=24, heads=2), LocalAttention(heads=2, head_dim=8, window=6)),
)
MODEL_CHANGES = {
    "vocab": 41,
    "width": 18,
    "mlp_width": 26,
    "layers": 4,
    "pattern": TINY.pattern[:1],
    "norm_eps": 1e-2,
    "logit_cap": 30.0,
    "scale_embeddings": True,
    "mlp_init": "doubled",
    "mlp": "swiglu",
    "mlp_bias": False,
    "tied": False,
    "norm_weight": "plain",
    "scale_rounding": "weights",
}
RECURRENT_CHANGES = {
    "width": 32,
    "heads": 4,
    "conv_width": 3,
    "lambda_init": "paper",
    "gate_init": "full",
    "complex": True,
}
ATTENTION_CHANGES = {
    "heads": 4,
    "head_dim": 12,
    "window": 5,
    "kv_heads": 2,
    "rope_base": 500.0,
    "rope_fraction": 1.0,
}


def signature(config):
    """Logits of a fixed text by the weights of a fixed seed; of the first 40 words."""
    tokens = torch.randint(0, 40, (1, 20), generator=torch.Generator().manual_seed(0))
    model = griffin.build(config, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms away from 0 and 1: they count
            parameter.add_(0.05).mul_(1.1)
        return model(tokens)[0][..., :40]


def variants():
    for name, value in MODEL_CHANGES.items():
        base = replace(TINY, width=18, scale_embeddings=True) if name == "scale_rounding" else TINY
        yield f"model.{name}", base, replace(base, **{name: value})
    recurrent, attention = TINY.pattern
    for name, value in RECURRENT_CHANGES.items():
        pattern = (replace(recurrent, **{name: value}), attention)
        yield f"rg_lru.{name}", TINY, replace(TINY, pattern=pattern)
    for name, value in ATTENTION_CHANGES.items():
        pattern = (recurrent, replace(attention, **{name: value}))
        yield f"local_attention.{name}", TINY, replace(TINY, pattern=pattern)


@pytest.mark.parametrize("name, base, config", list(variants()), ids=lambda value: str(value)[:30])
def test_every_setting_changes_the_output(name, base, config):
    assert not torch.allclose(signature(base), signature(config), atol=1e-4), name


def test_no_setting_is_left_out_of_that_test():
    assert {field.name for field in fields(griffin.ModelConfig)} == set(MODEL_CHANGES)
    assert {field.name for field in fields(RGLRU)} == set(RECURRENT_CHANGES)
    assert {field.name for field in fields(LocalAttention)} == set(ATTENTION_CHANGES)


@pytest.mark.parametrize("name", sorted(griffin.PRESETS))
def test_every_preset_survives_a_dict(name):
    config = griffin.PRESETS[name]
    assert griffin.ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "name, parameters",
    (
        ("recurrentgemma-2b", 2_682_862_080),
        ("recurrentgemma-9b", 8_579_977_216),
        ("griffin-code-7b", 7_795_144_704),
        ("hawk-code-7b", 8_161_562_624),
        ("gemma-2b", 2_506_172_416),
        ("gemma-7b", 8_537_680_896),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
    ),
)
def test_presets_have_the_published_number_of_parameters(name, parameters):
    model = griffin.build(name, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


# non-embedding parameters of Griffin, Hawk, MQA for each size of the paper's table 2
PAPER = {
    "100m": ("89.3M", "93.8M", "80.3M"),
    "200m": ("163.0M", "173.7M", "141.7M"),
    "400m": ("355.3M", "374.8M", "316.3M"),
    "1.3b": ("1.243B", "1.304B", "1.120B"),
    "3b": ("2.835B", "2.996B", "2.511B"),  # Hawk: 2 996 456 448; 2.997 is 2.9965 rounded again
    "7b": ("6.790B", "7.176B", "5.940B"),
    "14b": ("13.76B", None, None),
}


def paper_sizes():
    for size, counts in PAPER.items():
        for kind, printed in zip(("griffin", "hawk", "mqa"), counts, strict=True):
            if printed is not None:
                named = "6b" if kind == "mqa" and size == "7b" else size
                yield f"{kind}-{named}", printed


def by_hand(name):
    """The same counts from the widths alone: norms, MLP, then the recurrent block or attention."""
    config = griffin.PRESETS[name]
    w, m = config.width, 3 * config.width

    def mixer(layer):
        if name.startswith("mqa") or (name.startswith("griffin") and layer % 3 == 2):
            return 2 * w * w + 2 * w * 128 + w
        r = config.mixer(layer).width
        gates = 2 * (r * r // 16 + r)
        return 3 * w * r + 2 * r + w + 5 * r + r + gates

    block = 2 * w + 3 * w * m + 2 * m + w
    return sum(block + mixer(layer) for layer in range(config.layers)) + w


@pytest.mark.parametrize("name, printed", list(paper_sizes()))
def test_the_papers_sizes_are_met_to_their_printed_digits(name, printed):
    model = griffin.build(name, device="meta")
    rest = sum(p.numel() for p in model.parameters()) - model.embed.weight.numel()
    assert rest == by_hand(name)
    digits = len(printed) - printed.index(".") - 2
    assert f"{rest / {'M': 1e6, 'B': 1e9}[printed[-1]]:.{digits}f}{printed[-1]}" == printed


@pytest.mark.parametrize(
    "change, message",
    (
        ({"colour": 1}, "no setting 'colour'"),
        ({"pattern": "rg_lru"}, "pattern must be a list"),
        ({"pattern": [{"kind": "mamba3"}]}, "unknown mixer"),
        ({"pattern": []}, "names no mixer"),
        ({"pattern": [{"kind": "rg_lru", "width": 24}]}, "lacks the setting 'heads'"),
        ({"pattern": [{"kind": "rg_lru", "width": 24, "heads": 5}]}, "not a multiple"),
        ({"width": "wide"}, "width must be int"),
        ({"layers": 0}, "layers must be positive"),
        ({"logit_cap": -1.0}, "logit_cap"),
        ({"mlp_init": "big"}, "mlp_init"),
        ({"mlp": "relu"}, "mlp must be 'geglu', 'swiglu' or \"none\""),
        ({"mlp": "none"}, "mlp_width must be 0 with mlp 'none'"),
        ({"mlp_width": 0}, "mlp_width must be positive"),
        ({"norm_weight": "free"}, "norm_weight"),
        ({"scale_rounding": "up"}, "scale_rounding"),
        ({"tied": 0}, "tied must be bool"),
    ),
)
def test_a_config_that_makes_no_sense_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        griffin.ModelConfig.from_dict(TINY.to_dict() | change)


def test_a_missing_setting_is_named():
    settings = TINY.to_dict()
    del settings["vocab"]
    with pytest.raises(ConfigError, match="'vocab'"):
        griffin.ModelConfig.from_dict(settings)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="recurrentgemma-2b"):
        griffin.build("recurrentgemma-3b")


def test_the_fingerprint_does_not_know_the_order_nor_the_dtype_nor_the_init():
    model = griffin.build(TINY, dtype=torch.bfloat16)
    pairs = list(model.named_parameters())

    def digest(config, pairs):
        fingerprint = Fingerprint(config.identity())
        for name, tensor in pairs:
            fingerprint.add(name, tensor)
        return fingerprint.digest()

    exact = digest(TINY, pairs)
    assert digest(TINY, [(n, t.float()) for n, t in reversed(pairs)]) == exact
    assert digest(replace(TINY, mlp_init="doubled"), pairs) == exact
    assert digest(replace(TINY, logit_cap=1.0), pairs) != exact


def test_a_whole_number_where_a_float_belongs_is_that_float():
    settings = TINY.to_dict() | {"logit_cap": 5}
    config = griffin.ModelConfig.from_dict(settings)
    assert config == TINY and config.identity() == TINY.identity()
    assert isinstance(config.logit_cap, float)


ADDED = {"mlp": "geglu", "mlp_bias": True, "tied": True, "norm_weight": "offset"}
ADDED |= {"scale_rounding": "bfloat16"}


def test_settings_that_came_later_are_silent_at_their_default_and_count_otherwise():
    assert not set(ADDED) & set(TINY.to_dict()) and not set(ADDED) & set(TINY.identity())
    assert griffin.ModelConfig.from_dict(TINY.to_dict() | ADDED) == TINY
    untied = replace(TINY, tied=False)
    assert untied.to_dict()["tied"] is False and untied.identity() != TINY.identity()
    assert griffin.ModelConfig.from_dict(untied.to_dict()) == untied


def test_fingerprints_of_the_first_release_still_stand():
    """Computed by 0.1.0; states saved by it name them."""
    released = {
        "tiny-griffin": "e066589e7039d744cbce60f7f236b9fbb11e26e2326f9e98ca7c833c8ed9d5a0",
        "tiny-hawk": "ac5e5001811d9c1e36cd386167a435db97f2891fbc9468e8d25d037b97971921",
    }
    for name, fingerprint in released.items():
        model = griffin.build(name, seed=3)
        assert model.origin.model() == fingerprint


def test_a_head_of_its_own_is_a_second_matrix_and_the_tied_one_is_the_embedding():
    tied, untied = griffin.build(TINY), griffin.build(replace(TINY, tied=False))
    assert {name for name, _ in untied.named_parameters()} - {
        name for name, _ in tied.named_parameters()
    } == {"head.weight"}
    assert tied.head.weight is tied.embed.weight
    hidden = torch.randn(2, 3, TINY.width)
    for model in (tied, untied):
        logits = model.head(hidden)
        expected = 5 * torch.tanh(hidden @ model.head.weight.T / 5)
        torch.testing.assert_close(logits, expected)
    assert set(tied.state_dict()) == {name for name, _ in tied.named_parameters()}


def test_a_stack_without_mlps_has_neither_them_nor_their_norms():
    bare = replace(TINY, mlp="none", mlp_width=0)
    model = griffin.build(bare)
    assert not [name for name, _ in model.named_parameters() if "mlp" in name]
    assert model(torch.zeros(1, 4, dtype=torch.int64))[0].isfinite().all()
    assert griffin.ModelConfig.from_dict(bare.to_dict()) == bare
