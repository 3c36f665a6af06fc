"""What holds at the level of a model for each recurrent kind: gaps, packing, padding, settings.

The calls that every kind of model is put through stand in test_model_call.py; here documents and
padding lie in random places, in float64, where rounding can hide no slip of logic.
"""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import griffin_lm as griffin
from griffin_lm.mixers import GRU, LRU, RGLRU, S6
from tests.models.test_model_call import flags, same, slow_and_plain, text

TINY = griffin.PRESETS["tiny-hawk"]
CONFIGS = {
    "rg_lru, complex gates": replace(TINY, pattern=(RGLRU(width=48, heads=4, complex=True),)),
    "lru": griffin.PRESETS["tiny-lru"],
    "gru": griffin.PRESETS["tiny-gru"],
    "s6": griffin.PRESETS["tiny-mamba"],
    "s6 before an MLP": replace(TINY, layers=2, pattern=(S6(width=40, rank=3, states=5),)),
    "all in one": replace(
        TINY,
        layers=5,
        pattern=(
            LRU(width=20, states=12),
            S6(width=40, rank=2, states=4),
            *griffin.PRESETS["tiny-griffin"].pattern[1:],
            GRU(width=20),
        ),
    ),
}
each_kind = pytest.mark.parametrize("kind", CONFIGS)


@pytest.fixture(scope="module")
def models():
    return {
        kind: griffin.build(config, seed=3, dtype=torch.float64).requires_grad_(False)
        for kind, config in CONFIGS.items()
    }


@each_kind
@given(sizes=st.lists(st.integers(0, 9), min_size=2, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=8)
def test_any_chunking_with_gaps_and_starts_equals_documents_read_alone(models, kind, sizes, seed):
    model, length = models[kind], sum(sizes)
    if not length:
        return
    tokens = text(length, 2, seed)
    starts, valid = flags(2, length, 0.12, seed), flags(2, length, 0.7, seed + 1)
    exact = slow_and_plain(model, tokens, starts, valid)
    state, outs = None, []
    for part in zip(*(each.split(sizes, 1) for each in (tokens, starts, valid)), strict=True):
        out, state = model(*part, state)
        outs.append(out)
    logits = torch.cat(outs, 1)
    assert logits.isfinite().all()
    check = "any chunks, gaps and starts = each document alone, token by token"
    same(f"{check} (float64)", model, logits[valid], exact[valid], tolerance=1e-12)


@each_kind
def test_left_padded_rows_equal_the_same_rows_alone(models, kind):
    model, tokens = models[kind], text(23, 4)
    valid = torch.ones(4, 23, dtype=torch.bool)
    for row, padding in enumerate((0, 1, 9, 22)):
        valid[row, :padding] = False
    logits, state = model(tokens, valid=valid)
    later, _ = model(tokens[:, :5], state=state)
    for row in range(4):
        row_alone, end = model(tokens[row, valid[row]][None])
        same("left-padded = alone (float64)", model, logits[row, valid[row]], row_alone[0], 1e-12)
        following, _ = model(tokens[row : row + 1, :5], state=end)
        same("left-padded, then on (float64)", model, later[row], following[0], 1e-12)


@each_kind
def test_gradients_of_packed_documents_equal_those_of_separate_ones(kind):
    model = griffin.build(CONFIGS[kind], seed=3, dtype=torch.float64)
    tokens = text(30)
    starts = torch.zeros(1, 30, dtype=torch.bool)
    starts[0, 13] = True

    def gradients(*parts):
        model.zero_grad()
        sum(part.square().sum() for part in parts).backward()
        return [p.grad.clone() for p in model.parameters()]

    packed = gradients(model(tokens, starts=starts)[0])
    separate = gradients(model(tokens[:, :13])[0], model(tokens[:, 13:])[0])
    for mine, exact in zip(packed, separate, strict=True):
        torch.testing.assert_close(mine, exact)


@each_kind
def test_bf16_weights_give_finite_logits_near_those_of_fp32(kind):
    exact = griffin.build(CONFIGS[kind], seed=3).requires_grad_(False)
    narrow = griffin.build(CONFIGS[kind], seed=3, dtype=torch.bfloat16).requires_grad_(False)
    tokens = text(40, 2)
    logits, state = narrow(tokens)
    expected, _ = exact(tokens)
    assert logits.dtype == torch.bfloat16 and state.layers[0].h.dtype == torch.float32
    assert (logits.float() - expected).norm() < 0.05 * expected.norm()


CHANGES = {
    RGLRU(width=24, heads=2): {"complex": True},
    LRU(width=24, states=10): {
        **{"width": 26, "states": 11, "conv_width": 3},
        **{"r_min": 0.5, "r_max": 0.95, "max_phase": 1.0},
    },
    GRU(width=24): {"width": 20, "conv_width": 2},
    S6(width=24, rank=2): {
        **{"width": 26, "rank": 3, "states": 8, "conv_width": 3},
        **{"step_min": 0.01, "step_max": 0.9},
    },
}


def changed_settings():
    for mixer, changes in CHANGES.items():
        for name, value in changes.items():
            yield pytest.param(mixer, name, value, id=f"{mixer.kind}.{name}")


@pytest.mark.parametrize("mixer, name, value", list(changed_settings()))
def test_every_setting_changes_the_output(mixer, name, value):
    tokens = text(20)

    def signature(mixer):
        model = griffin.build(replace(TINY, layers=2, pattern=(mixer,)), seed=1)
        return model(tokens)[0]

    changed = signature(replace(mixer, **{name: value}))
    assert not torch.allclose(signature(mixer), changed, atol=1e-4)


def test_no_setting_is_left_out_of_that_test():
    for mixer, changes in CHANGES.items():
        if not isinstance(mixer, RGLRU):  # whose other settings stand in test_config.py
            assert {field.name for field in fields(mixer)} == set(changes)


@pytest.mark.parametrize("size", ("100m", "200m", "400m", "1.3b"))
@pytest.mark.parametrize("kind", ("lru", "gru"))
def test_stacks_of_other_cells_have_about_the_parameters_of_the_hawk_of_that_size(kind, size):
    def beside_the_embedding(name):
        model = griffin.build(name, device="meta")
        return sum(p.numel() for p in model.parameters()) - model.embed.weight.numel()

    hawk = beside_the_embedding(f"hawk-{size}")
    assert beside_the_embedding(f"{kind}-{size}") == pytest.approx(hawk, rel=0.05)
