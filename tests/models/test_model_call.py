"""The model call: chunks, gaps, starts, packed documents, batches, donated states."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import griffin_lm as griffin
from griffin_lm.errors import InputError, StateError
from tests.parity import record_parity

WINDOW = 8
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def same(check, model, mine, exact, tolerance=1e-5):
    """Equal to 1e-5 in fp32; the largest error of each check stands in docs/results/parity.md."""
    kinds = "-".join(sorted({config.kind for config in model.config.pattern}))
    error = float((mine - exact).abs().max()) if exact.numel() else 0.0
    record_parity(f"itself | {kinds} | {check}", error, tolerance)


TINY = sorted(name for name in griffin.PRESETS if name.startswith("tiny-"))


@pytest.fixture(scope="module", params=TINY)
def model(request):
    return griffin.build(request.param, seed=3).requires_grad_(False)


@pytest.fixture(scope="module")
def tiny():
    return griffin.build("tiny-griffin", seed=3).requires_grad_(False)


@pytest.fixture(scope="module")
def exact_tiny():
    return griffin.build("tiny-griffin", seed=3, dtype=torch.float64).requires_grad_(False)


def text(length, rows=1, seed=0):
    random = torch.Generator().manual_seed(seed + 31 * length)
    return torch.randint(0, 96, (rows, length), generator=random)


def flags(rows, length, share, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(rows, length, generator=random) < share


def same_state(one, other, **tolerance):
    # growing caches: what the rows can still see, not the room that they happen to have
    for mine, exact in zip(one.compact().layers, other.compact().layers, strict=True):
        for a, b in zip(mine, exact, strict=True):
            torch.testing.assert_close(a, b, **(tolerance or TOLERANCE))
    assert one.tokens.tolist() == other.tokens.tolist()


def slow_and_plain(model, tokens, starts, valid, state=None):
    """What the contract says in words: each document of each row alone, one token at a time."""
    dtype = model.embed.weight.dtype
    logits = torch.full((*tokens.shape, model.config.vocab), torch.nan, dtype=dtype)
    for row in range(tokens.shape[0]):
        inside, asked = model.empty_state(1), False
        for t in range(tokens.shape[1]):
            asked = asked or bool(starts[row, t])
            if valid[row, t]:
                inside = model.empty_state(1) if asked else inside
                asked = False
                out, inside = model(tokens[row : row + 1, t : t + 1], state=inside)
                logits[row, t] = out[0, 0]
    return logits


@pytest.mark.parametrize("length", (1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 40))
def test_every_two_chunks_equal_the_whole(model, length):
    tokens = text(length, 2)
    whole, end = model(tokens)
    for cut in range(length + 1):
        left, state = model(tokens[:, :cut])
        right, state = model(tokens[:, cut:], state=state)
        same("every two chunks = whole", model, torch.cat([left, right], 1), whole)
        same_state(state, end)


@given(sizes=st.lists(st.integers(0, 19), min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_chunking_with_gaps_and_starts_equals_documents_read_alone(exact_tiny, sizes, seed):
    """In float64, where rounding can hide no slip of logic: fp32 alone gives up to 1.1e-5 here."""
    tiny, length = exact_tiny, sum(sizes)
    if not length:
        return
    tokens = text(length, 2, seed)
    starts, valid = flags(2, length, 0.12, seed), flags(2, length, 0.7, seed + 1)
    exact = slow_and_plain(tiny, tokens, starts, valid)
    state, begin, outs = None, 0, []
    for size in sizes:
        part = slice(begin, begin + size)
        out, state = tiny(tokens[:, part], starts[:, part], valid[:, part], state)
        outs.append(out)
        begin += size
    logits = torch.cat(outs, 1)
    assert logits.isfinite().all()
    check = "any chunks, gaps and starts = each document alone, token by token"
    same(f"{check} (float64)", tiny, logits[valid], exact[valid], tolerance=1e-12)
    assert state.tokens.tolist() == valid.sum(1).tolist()


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_chunks_with_gaps_and_starts_equal_documents_read_alone_in_fp32_too(tiny, seed):
    tokens, starts, valid = text(40, 2, seed), flags(2, 40, 0.12, seed), flags(2, 40, 0.7, seed + 1)
    exact = slow_and_plain(tiny, tokens, starts, valid)
    state, outs = None, []
    for part in (slice(0, 11), slice(11, 12), slice(12, 40)):
        out, state = tiny(tokens[:, part], starts[:, part], valid[:, part], state)
        outs.append(out)
    check = "chunks, gaps and starts = each document alone, token by token"
    same(check, tiny, torch.cat(outs, 1)[valid], exact[valid])


def test_a_ragged_batch_equals_each_row_alone(model):
    tokens = text(30, 4)
    lengths = torch.tensor([30, 1, 17, 9])
    for left in (False, True):
        steps = torch.arange(30)
        valid = (steps >= 30 - lengths[:, None]) if left else (steps < lengths[:, None])
        logits, state = model(tokens, valid=valid)
        for row in range(4):
            alone, own = model(tokens[row : row + 1, valid[row]])
            same("ragged batch = single", model, logits[row, valid[row]], alone[0])
            same_state(state[row], own)


def test_packed_documents_equal_separate_ones(model):
    tokens = text(45)
    starts = torch.zeros(1, 45, dtype=torch.bool)
    cuts = [0, 1, 3, 20, 45]
    starts[0, cuts[1:-1]] = True
    packed, _ = model(tokens, starts=starts)
    for begin, end in pairwise(cuts):
        alone, _ = model(tokens[:, begin:end])
        same("packed = separate", model, packed[:, begin:end], alone)


def test_a_token_of_one_document_moves_no_bit_of_the_next_nor_of_its_gradients():
    model = griffin.build("tiny-griffin", seed=3)
    starts = torch.zeros(1, 40, dtype=torch.bool)
    starts[0, 19] = True
    results = []
    for change in (0, 1):
        tokens = text(40)
        tokens[0, 4:18] = (tokens[0, 4:18] + change) % 96
        logits, _ = model(tokens, starts=starts)
        model.zero_grad()
        logits[:, 19:].square().sum().backward()
        gradients = [p.grad.clone() for p in model.layers.parameters()]
        results.append((logits[:, 19:].detach(), gradients))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_gradients_of_packed_documents_equal_those_of_separate_ones():
    model = griffin.build("tiny-griffin", seed=3, dtype=torch.float64)
    tokens = text(40)
    starts = torch.zeros(1, 40, dtype=torch.bool)
    starts[0, 13] = True

    def gradients(*parts):
        model.zero_grad()
        sum(part.square().sum() for part in parts).backward()
        return [p.grad.clone() for p in model.parameters()]

    packed = gradients(model(tokens, starts=starts)[0])
    separate = gradients(model(tokens[:, :13])[0], model(tokens[:, 13:])[0])
    for mine, exact in zip(packed, separate, strict=True):
        torch.testing.assert_close(mine, exact)


def test_a_start_on_padding_moves_to_the_next_valid_token_even_in_a_later_call(model):
    tokens = text(20)
    alone, _ = model(tokens[:, 12:])
    valid = torch.ones(1, 20, dtype=torch.bool)
    valid[0, 8:12] = False
    starts = torch.zeros_like(valid)
    starts[0, 9] = True
    once, _ = model(tokens, starts, valid)
    same("a start on padding", model, once[:, 12:], alone)
    _, state = model(tokens[:, :10], starts[:, :10], valid[:, :10])
    _, state = model(tokens[:, 10:12], starts[:, 10:12], valid[:, 10:12], state)
    later, _ = model(tokens[:, 12:], state=state)
    same("a start on padding, met two calls later", model, later, alone)


def test_empty_rows_stay_empty_and_then_begin_a_document(model):
    tokens = text(9, 2)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1] = False
    _, state = model(tokens, valid=valid)
    assert state.tokens.tolist() == [9, 0]
    fresh = model.empty_state(1)
    same_state(state[1], fresh, rtol=0, atol=0)
    later, _ = model(tokens, state=state)
    alone, _ = model(tokens[1:])
    same("an empty row then read = fresh", model, later[1:], alone)


def test_a_row_without_a_valid_token_keeps_its_state_to_the_bit(model):
    tokens = text(33, 3)
    _, before = model(tokens)
    valid = torch.ones(3, 33, dtype=torch.bool)
    valid[1] = False
    for donate in (False, True):
        _, after = model(tokens, valid=valid, state=before.clone(), donate=donate)
        same_state(after[1], before[1], rtol=0, atol=0)


def test_two_interleaved_sessions_equal_two_separate_ones(model):
    first, second = text(24), text(24, seed=5)
    exact = [model(tokens)[0] for tokens in (first, second)]
    states, outs = [None, None], [[], []]
    for t in range(0, 24, 3):
        for i, tokens in enumerate((first, second)):
            out, states[i] = model(tokens[:, t : t + 3], state=states[i])
            outs[i].append(out)
    for out, whole in zip(outs, exact, strict=True):
        same("two interleaved sessions = separate", model, torch.cat(out, 1), whole)


def test_a_fork_that_goes_its_own_way_leaves_its_parent_as_it_was(model):
    _, parent = model(text(15))
    copy = parent.clone()
    model(text(6, seed=1), state=parent)
    model(text(6, seed=2), state=parent.clone(), donate=True)
    same_state(parent, copy, rtol=0, atol=0)


def test_a_donated_state_raises_when_it_is_used_again(model):
    tokens = text(12)
    _, kept = model(tokens)
    _, given_away = model(tokens)
    exact, _ = model(tokens, state=kept)
    logits, _ = model(tokens, state=given_away, donate=True)
    assert torch.equal(logits, exact)
    for use in (
        lambda: model(tokens, state=given_away),
        lambda: given_away.tokens,
        given_away.clone,
    ):
        with pytest.raises(StateError, match="donated"):
            use()


def test_token_by_token_with_donation_equals_the_whole(model):
    tokens = text(40, 2)
    whole, end = model(tokens)
    state, outs = None, []
    for t in range(40):
        out, state = model(tokens[:, t : t + 1], state=state, donate=True)
        outs.append(out)
    same("single donated steps = whole", model, torch.cat(outs, 1), whole)
    same_state(state, end)


def test_last_logits_are_those_of_each_rows_last_valid_token(model):
    tokens = text(20, 3)
    valid = flags(3, 20, 0.5, seed=4)
    every, _ = model(tokens, valid=valid)
    last, _ = model(tokens, valid=valid, logits="last")
    for row in range(3):
        at = int(valid[row].nonzero()[-1])
        torch.testing.assert_close(last[row], every[row, at], **TOLERANCE)


def test_no_logits_still_give_the_state(model):
    tokens = text(20)
    logits, state = model(tokens, logits=None)
    assert logits is None
    same_state(state, model(tokens)[1])


def test_hidden_and_head_make_the_logits(model):
    tokens = text(11, 2)
    hidden, state = model.hidden(tokens)
    logits, other = model(tokens)
    assert torch.equal(model.head(hidden), logits)
    same_state(state, other)


def test_a_pending_token_is_fed_before_the_next_ones(model):
    tokens = text(20, 2)
    whole, end = model(tokens)
    _, state = model(tokens[:, :9])
    state = state.with_pending(tokens[:, 9])
    assert state.tokens.tolist() == [10, 10]
    rest, after = model(tokens[:, 10:], state=state)
    same("a pending token = fed at once", model, rest, whole[:, 10:])
    same_state(after, end)
    last, _ = model(tokens[:, :0], state=state, logits="last")
    torch.testing.assert_close(last, whole[:, 9], **TOLERANCE)


def test_rows_without_a_pending_token_are_not_disturbed_by_those_with_one(model):
    tokens = text(20, 2)
    _, state = model(tokens[:, :9])
    mixed = state.with_pending([int(tokens[0, 9]), -1])
    logits, _ = model(tokens[:, 10:], state=mixed)
    with_it, _ = model(torch.cat([tokens[:1, 9:10], tokens[:1, 10:]], 1), state=state[0])
    without, _ = model(tokens[1:, 10:], state=state[1])
    torch.testing.assert_close(logits[:1], with_it[:, 1:], **TOLERANCE)
    torch.testing.assert_close(logits[1:], without, **TOLERANCE)


@pytest.mark.parametrize("place", (10**6, 10**9))
def test_logits_do_not_depend_on_how_far_the_counter_stands(tiny, place):
    def read_at(position):
        state = tiny.empty_state(1)
        state.position += position
        state.read += position
        return tiny(text(50), state=state)[0]

    same(f"counter at {place:.0e} = at 1e+04", tiny, read_at(place), read_at(10**4))


def test_a_shorter_window_for_a_call_changes_only_the_row_that_asks(tiny):
    tokens = text(30).repeat(2, 1)
    plain, _ = tiny(tokens)
    narrow, _ = tiny(tokens, window=torch.tensor([2, WINDOW]))
    assert not torch.allclose(narrow[0], plain[0], atol=1e-4)
    torch.testing.assert_close(narrow[1], plain[1], **TOLERANCE)


def test_bf16_weights_keep_an_fp32_recurrent_state():
    model = griffin.build("tiny-griffin", dtype=torch.bfloat16)
    logits, state = model(text(20))
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
    assert state.layers[0].h.dtype == torch.float32
    assert state.layers[0].conv.dtype == state.layers[2].k.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "call, message",
    (
        (lambda m: m(torch.zeros(1, 3)), "int64"),
        (lambda m: m(torch.zeros(3, dtype=torch.int64)), "int64"),
        (lambda m: m(text(3), valid=torch.ones(1, 2, dtype=torch.bool)), "valid must be"),
        (lambda m: m(text(3), starts=torch.ones(1, 3).long()), "starts must be"),
        (lambda m: m(torch.full((1, 3), 96)), "token id 96 is outside the vocabulary of 96"),
        (lambda m: m(torch.full((1, 3), -1)), "token id -1"),
        (lambda m: m(text(3), logits="first"), "logits must be"),
        (lambda m: m(text(0), logits="last"), "no tokens"),
        (lambda m: m(text(3), state=m.empty_state(2)), "2"),
    ),
)
def test_what_cannot_be_meant_is_refused_with_its_reason(tiny, call, message, unchecked_shapes):
    with pytest.raises((InputError, StateError), match=message):
        call(tiny)


def test_ids_of_invalid_tokens_may_be_anything(tiny):
    tokens = torch.tensor([[5, -100, 7, 10**6]])
    valid = torch.tensor([[True, False, True, False]])
    logits, _ = tiny(tokens, valid=valid)
    exact, _ = tiny(torch.tensor([[5, 7]]))
    torch.testing.assert_close(logits[:, ::2], exact, **TOLERANCE)


def test_the_gradient_of_every_parameter_equals_finite_differences():
    model = griffin.build("tiny-griffin", seed=3, dtype=torch.float64)
    tokens = text(14)
    starts = torch.zeros(1, 14, dtype=torch.bool)
    starts[0, 6] = True

    def loss():
        logits, _ = model(tokens[:, :-1], starts=starts[:, :-1])
        return torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:])

    loss().backward()
    step, random = 1e-6, torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        with torch.no_grad():
            parameter.add_(step * direction)
            above = loss()
            parameter.sub_(2 * step * direction)
            below = loss()
            parameter.add_(step * direction)
        expected = float((above - below) / (2 * step))
        assert float((parameter.grad * direction).sum()) == pytest.approx(
            expected, rel=1e-5, abs=1e-8
        ), name
