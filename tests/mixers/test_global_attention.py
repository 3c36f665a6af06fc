"""Global attention against its float64 definition; its cache: steps, room, rows of many lengths."""

from dataclasses import fields, replace

import pytest
import torch

from griffin_lm.errors import ConfigError
from griffin_lm.layers.rope import rotary_angles, rotate
from griffin_lm.mixers import MIXERS, GlobalAttention, Span
from griffin_lm.mixers.base import capacity
from tests.mixers.test_conformance import WIDTH, empty, full, span, starts_at
from tests.parity import record_parity

KINDS = {
    "MHA": GlobalAttention(heads=4, head_dim=6, kv_heads=4),
    "GQA": GlobalAttention(heads=4, head_dim=6, kv_heads=2, out_bias=True),
    "MQA": GlobalAttention(heads=4, head_dim=8, kv_heads=1, rope_fraction=0.5),
    "no rotation": GlobalAttention(heads=2, head_dim=5, kv_heads=2, rope_fraction=0.0),
    "scaled": GlobalAttention(heads=2, head_dim=8, rope_factor=8.0, rope_context=12),
}


def built(config, dtype=torch.float64):
    mixer = config.build(WIDTH).to_empty(device="cpu").to(dtype)
    with torch.no_grad():
        mixer.initialise(4, torch.Generator().manual_seed(1))
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer


def definition(mixer, x, starts, position):
    """Softmax over every key of the same document that is not later, head by head."""
    config = mixer.config
    q, k, v = (
        linear(x).unflatten(-1, (-1, config.head_dim)) for linear in (mixer.q, mixer.k, mixer.v)
    )
    if config.rotary_width:
        angles = rotary_angles(position, config.rotary_width, config.rope_base, config.scaling)
        q, k = rotate(q, angles), rotate(k, angles)
    document, t = starts.cumsum(1), torch.arange(x.shape[1])
    visible = (t[:, None] >= t) & (document[:, :, None] == document[:, None, :])
    heads = []
    for head in range(config.heads):
        key = head * config.kv_heads // config.heads
        scores = q[:, :, head] @ k[:, :, key].transpose(1, 2) / config.head_dim**0.5
        heads.append(scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v[:, :, key])
    return mixer.out(torch.cat(heads, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_its_definition_in_any_chunks(kind):
    mixer = built(KINDS[kind])
    x = torch.randn(2, 41, WIDTH, dtype=torch.float64)
    facts = span(starts_at(3, 17, length=41), full(x))
    exact = definition(mixer, x, facts.starts, facts.position)
    for pieces in (1, 2, 5, 41):
        state, outs = empty(mixer), []
        for begin in range(0, 41, pieces):
            part = slice(begin, begin + pieces)
            here = Span(
                facts.starts[:, part], facts.position[:, part], full(x[:, part]), facts.read + begin
            )
            out, state = mixer(x[:, part], here, state)
            outs.append(out)
        error = float((torch.cat(outs, 1) - exact).detach().abs().max())
        record_parity(
            f"float64 definition | global attention, {kind} | pieces of {pieces}", error, 1e-12
        )


def test_its_cache_grows_in_whole_steps_and_starts_with_nothing():
    mixer = built(KINDS["GQA"])
    state = empty(mixer)
    assert capacity(state) == 0 and not any(tensor.numel() for tensor in state)
    for read, expected in ((1, 256), (256, 256), (257, 512)):
        x = torch.randn(1, read, WIDTH, dtype=torch.float64)
        begin = torch.zeros(1, read, dtype=torch.bool)
        begin[:, 0] = True
        _, after = mixer(x, span(begin, full(x)), empty(mixer, 1))
        assert capacity(after) == expected
        held = after.k[:, :read].abs().sum((2, 3))
        assert (held > 0).all() and not after.k[:, read:].any()


def test_documents_that_ended_take_no_slots():
    mixer = built(KINDS["MQA"])
    x = torch.randn(2, 400, WIDTH, dtype=torch.float64)
    _, state = mixer(x, span(starts_at(200, 390, length=400), full(x)), empty(mixer))
    assert capacity(state) == 256 and not state.k[:, 10:].any()


@pytest.mark.parametrize("donate", (False, True))
def test_a_donated_cache_with_room_is_written_in_place_and_no_other(donate):
    mixer = built(KINDS["GQA"]).requires_grad_(False)
    x = torch.randn(2, 23, WIDTH, dtype=torch.float64)
    _, state = mixer(x, span(starts_at(), full(x)), empty(mixer))
    before = state.k.clone()
    none = torch.zeros(2, 23, dtype=torch.bool)
    facts = span(none, full(x), full(x), full(x))._replace(donate=donate)
    _, after = mixer(x, facts, state)
    assert (after.k.data_ptr() == state.k.data_ptr()) is donate
    assert torch.equal(state.k, before) is not donate
    assert torch.equal(after.k[:, :23], before[:, :23])


def test_a_donated_cache_that_gradients_need_is_not_written_over():
    mixer = built(KINDS["GQA"])
    x = torch.randn(2, 23, WIDTH, dtype=torch.float64)
    _, state = mixer(x, span(starts_at(), full(x)), empty(mixer))
    none = torch.zeros(2, 1, dtype=torch.bool)
    outs = []
    for t in range(3):
        at = torch.full((2,), 23 + t)
        facts = span(none, torch.ones_like(at), at, at)._replace(donate=True)
        out, state = mixer(x[:, t : t + 1], facts, state)
        outs.append(out)
    torch.cat(outs).square().sum().backward()
    assert mixer.k.weight.grad.abs().sum() > 0


def test_rows_of_many_lengths_share_a_cache():
    mixer = built(KINDS["scaled"])
    lengths = torch.tensor([300, 0, 7, 256])
    x = torch.randn(4, 300, WIDTH, dtype=torch.float64)
    begin = torch.zeros(4, 300, dtype=torch.bool)
    begin[:, 0] = True
    y, state = mixer(x, span(begin, lengths), empty(mixer, 4))
    assert capacity(state) == 512
    more = torch.randn(4, 5, WIDTH, dtype=torch.float64)
    none = torch.zeros(4, 5, dtype=torch.bool)
    none[1, 0] = True
    joint, _ = mixer(more, span(none, full(more), lengths, lengths), state)
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        whole = torch.cat([x[one, :length], more[one]], 1)
        begin = torch.zeros(1, length + 5, dtype=torch.bool)
        begin[0, 0] = True
        alone, _ = mixer(whole, span(begin, full(whole)), empty(mixer, 1))
        torch.testing.assert_close(joint[one], alone[:, length:])
        torch.testing.assert_close(y[one, :length], alone[:, :length])


def test_a_row_of_padding_beside_a_full_cache_stays_finite():
    mixer = built(KINDS["MQA"])
    x = torch.randn(2, 256, WIDTH, dtype=torch.float64)
    _, state = mixer(x, span(starts_at(length=256), full(x)), empty(mixer))
    for counts in ([1, 0], [0, 0]):
        place = torch.tensor([0, 256]) if counts[0] else full(x)
        facts = Span(
            torch.tensor([[bool(counts[0])], [False]]),
            place[:, None],
            torch.tensor(counts),
            full(x),
        )
        y, after = mixer(x[:, :1], facts, state)
        assert y.isfinite().all()
        assert torch.equal(after.k[1, :256], state.k[1])


def test_an_empty_cache_and_nothing_but_padding_stay_finite_and_empty():
    mixer = built(KINDS["MQA"])
    zero = torch.zeros(2, dtype=torch.int64)
    for length in (1, 3):
        none = torch.zeros(2, length, dtype=torch.bool)
        x = torch.randn(2, length, WIDTH, dtype=torch.float64)
        y, after = mixer(x, span(none, zero), empty(mixer))
        assert y.isfinite().all() and capacity(after) == 0


def test_bytes_per_token_are_a_key_and_a_value_for_every_key_head():
    assert KINDS["GQA"].bytes_per_token(torch.bfloat16) == 2 * 2 * 6 * 2
    assert (
        MIXERS["local_attention"](heads=1, head_dim=4, window=3).bytes_per_token(torch.float) == 0
    )


@pytest.mark.parametrize(
    "change, message",
    (
        ({"heads": 3}, "heads 3 is not a multiple of kv_heads 2"),
        ({"kv_heads": 0}, "kv_heads must be positive"),
        ({"head_dim": 0}, "head_dim must be positive"),
        ({"head_dim": 7}, "even number of dimensions"),
        ({"rope_fraction": 1.5}, "rope_fraction"),
        ({"rope_base": 1.0}, "rope_base"),
        ({"rope_factor": 0.5}, "rope_factor must be 1 or more"),
        ({"rope_low": 4.0}, r"rope_high 4.0 must exceed rope_low 4.0"),
        ({"rope_low": 0.0}, "rope_low must be positive"),
        ({"rope_context": 0}, "rope_context must be positive"),
        ({"rope_type": "yarn"}, "no setting 'rope_type'"),
    ),
)
def test_settings_that_make_no_sense_are_refused_by_name(change, message):
    settings = GlobalAttention(heads=4, head_dim=6, kv_heads=2).to_dict()
    with pytest.raises(ConfigError, match=message):
        GlobalAttention.from_dict(settings | change)


CHANGES = {
    "heads": 8,
    "head_dim": 12,
    "kv_heads": 4,
    "rope_base": 500.0,
    "rope_fraction": 0.5,
    "rope_factor": 2.0,
    "rope_low": 0.5,
    "rope_high": 9.0,
    "rope_context": 30,
    "out_bias": True,
}


@pytest.mark.parametrize("name", [field.name for field in fields(GlobalAttention)])
def test_every_setting_changes_the_output(name):
    base = GlobalAttention(heads=4, head_dim=8, kv_heads=2, rope_factor=8.0, rope_context=24)
    x = torch.randn(1, 20, WIDTH, dtype=torch.float64)
    begin = torch.zeros(1, 20, dtype=torch.bool)
    begin[0, 0] = True
    outs = []
    for config in (base, replace(base, **{name: CHANGES[name]})):
        torch.manual_seed(0)
        mixer = built(config)
        outs.append(mixer(x, span(begin, full(x)), empty(mixer, 1))[0])
    assert not torch.allclose(*outs, atol=1e-6)
