"""Mamba's block against transformers' MambaMixer, and what the published code does not have."""

import math

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import load_model
from griffin_lm.errors import ConfigError
from griffin_lm.mixers import S6
from tests.mixers.test_conformance import span
from tests.parity import record_parity

# rows, tokens, model width, channels, rank, states, taps
SHAPES = (
    (1, 1, 8, 16, 1, 16, 4),
    (2, 7, 12, 10, 3, 5, 2),
    (2, 63, 20, 40, 2, 16, 4),
    (1, 100, 9, 21, 4, 7, 3),
)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def built(width, inner, rank, states, taps, **settings):
    config = S6(width=inner, rank=rank, states=states, conv_width=taps, **settings)
    mixer = config.build(width).to_empty(device="cpu")
    with torch.no_grad():
        mixer.initialise(2, torch.Generator().manual_seed(width))
    return mixer


def pair(width, inner, rank, states, taps):
    """Our mixer and theirs with the same random weights."""
    mamba = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = mamba.MambaConfig(
        hidden_size=width,
        state_size=states,
        conv_kernel=taps,
        time_step_rank=rank,
        num_hidden_layers=1,
        vocab_size=8,
    )
    config.intermediate_size = inner
    theirs, ours = mamba.MambaMixer(config, 0), built(width, inner, rank, states, taps)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, parameter in theirs.named_parameters():
            value = dict(ours.named_parameters())[OURS[name]]
            parameter.copy_(value.T[:, None] if name == "conv1d.weight" else value)
    return ours, theirs


OURS = {
    "A_log": "A_log",
    "D": "D",
    "in_proj.weight": "linear_in.weight",
    "conv1d.weight": "conv.w",
    "conv1d.bias": "conv.b",
    "x_proj.weight": "select.weight",
    "dt_proj.weight": "step.weight",
    "dt_proj.bias": "step.bias",
    "out_proj.weight": "linear_out.weight",
}


def read(mixer, x, piece=None):
    """Outputs of x, in calls of `piece` tokens."""
    state, ys, read = mixer.empty_state(x.shape[0], x.device, x.dtype), [], 0
    for part in x.split(piece or x.shape[1], 1):
        starts = torch.zeros(part.shape[:2], dtype=torch.bool)
        before = torch.full((x.shape[0],), read)
        count = torch.full((x.shape[0],), part.shape[1])
        y, state = mixer(part, span(starts, count, before, before), state)
        ys.append(y)
        read += part.shape[1]
    return torch.cat(ys, 1)


def record(shape, case, mine, exact, tolerance=2e-5):
    batch, length, width, inner, rank, states, taps = shape
    model = (
        f"MambaMixer, width {width}, {inner} channels, {states} states, rank {rank}, {taps} taps"
    )
    error = (mine - exact).abs().max().item()
    record_parity(f"transformers | {model} | {batch} x {length} tokens, {case}", error, tolerance)


@each_shape
@torch.no_grad()
def test_the_mixer_equals_transformers_whole_in_chunks_and_in_steps(shape):
    ours, theirs = pair(*shape[2:])
    x = torch.randn(*shape[:3])
    expected = theirs(x)
    for piece, case in ((None, "one call"), (3, "in calls of 3"), (1, "in calls of 1")):
        record(shape, case, read(ours, x, piece), expected)


@each_shape
def test_its_gradients_are_those_of_transformers(shape):
    ours, theirs = pair(*shape[2:])
    x = torch.randn(*shape[:3], requires_grad=True)
    weight = torch.randn_like(x)
    (read(ours, x) * weight).sum().backward()
    mine, x.grad = x.grad, None
    (theirs(x) * weight).sum().backward()
    record(shape, "gradients, relative", mine / (scale := 1 + x.grad.abs().max()), x.grad / scale)
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        exact = parameter.grad[:, 0].T if name == "conv1d.weight" else parameter.grad
        scale = 1 + exact.abs().max()
        gradient = found[OURS[name]].grad
        record(shape, "gradients, relative", gradient / scale, exact / scale, 1e-4)


def test_it_starts_as_mambas_code_does():
    mixer = built(64, 400, 4, 16, 4)
    torch.testing.assert_close(-mixer.A_log.exp(), -torch.arange(1.0, 17).expand(400, 16))
    assert torch.equal(mixer.D, torch.ones(400)) and torch.equal(mixer.conv.b, torch.zeros(400))
    step = torch.nn.functional.softplus(mixer.step.bias)
    assert step.min() > 0.99e-3 and step.max() < 0.1001
    even = (step.log() - math.log(1e-3)) / math.log(100)
    assert even.mean().item() == pytest.approx(0.5, abs=0.05)
    for parameter, bound in (
        (mixer.step.weight, 4**-0.5),
        (mixer.linear_out.weight, (2 * 400) ** -0.5),
        (mixer.linear_in.weight, 64**-0.5),
        (mixer.select.weight, 400**-0.5),
        (mixer.conv.w, 4**-0.5),
    ):
        assert parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_no_step_is_smaller_than_the_floor_at_the_start():
    mixer = built(8, 50, 1, 2, 4, step_min=1e-6, step_max=1e-5)
    assert torch.nn.functional.softplus(mixer.step.bias).min() > 0.99e-4


def test_its_decays_and_its_skip_stay_fp32_under_bf16_weights():
    mixer = built(8, 16, 1, 4, 4).bfloat16()
    assert mixer.A_log.dtype == mixer.D.dtype == torch.float32
    assert mixer.linear_in.weight.dtype == torch.bfloat16
    x, facts = torch.randn(1, 5, 8).bfloat16(), torch.zeros(1, 5, dtype=torch.bool)
    state = mixer.empty_state(1, x.device, x.dtype)
    y, after = mixer(x, span(facts, torch.tensor([5])), state)
    assert y.dtype == after.conv.dtype == torch.bfloat16 and after.h.dtype == torch.float32


@pytest.mark.parametrize(
    "change, message",
    (
        ({"rank": 0}, "rank must be positive"),
        ({"conv_width": 1}, "conv_width must be 2"),
        ({"step_min": 0.2}, "step_min <= step_max"),
    ),
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        S6(**({"width": 4, "rank": 1} | change))


def test_a_checkpoint_loaded_in_bf16_keeps_them_fp32_too(tmp_path):
    model = griffin.build("tiny-mamba", seed=2)
    griffin.save(model, tmp_path / "m")
    narrow = load_model(tmp_path / "m", dtype=torch.bfloat16)
    for name, parameter in narrow.named_parameters():
        kept = name.endswith((".A_log", ".D"))
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name
    exact = dict(model.named_parameters())["layers.0.mixer.A_log"]
    assert torch.equal(dict(narrow.named_parameters())["layers.0.mixer.A_log"], exact)
    griffin.save(narrow, tmp_path / "again")
    again = load_model(tmp_path / "again")
    for mine, other in zip(again.parameters(), narrow.parameters(), strict=True):
        assert mine.dtype == other.dtype and torch.equal(mine, other)
