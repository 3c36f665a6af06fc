"""A cache of keys and values in int8: asked for by name, saved as such, and near the plain one."""

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import ConfigError, StateError
from griffin_lm.mixers.local_attention import AttentionState, RoundedState
from griffin_lm.ops.attention.rounded import restored, rounded

TOKENS = torch.randint(0, 96, (3, 40), generator=torch.Generator().manual_seed(0))


def model(cache="int8", name="tiny-griffin", **options):
    built = griffin.build(name, seed=3, **options)
    built.cache = cache
    return built


def rings(state):
    return [layer for layer in state.layers if isinstance(layer, RoundedState)]


def same(one, other):
    pairs = zip(one.layers, other.layers, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


def test_it_is_off_unless_asked_for_by_name():
    plain = griffin.build("tiny-griffin", seed=3)
    assert plain.cache == "auto"
    assert any(isinstance(layer, AttentionState) for layer in plain.empty_state(1).layers)
    with pytest.raises(ConfigError, match="none of: auto, int8"):
        plain.cache = "fp8"
    with pytest.raises(ConfigError, match="no layer has it"):
        griffin.build("tiny-hawk", seed=3).cache = "int8"
    assert len(rings(model().empty_state(1))) == 1


def test_of_the_full_size_it_takes_a_little_more_than_half_of_bf16():
    sizes = []
    for cache in ("auto", "int8"):
        with torch.device("meta"):
            big = griffin.models.Griffin(
                griffin.PRESETS["recurrentgemma-2b"], device="meta", dtype=torch.bfloat16
            )
        big.cache = cache
        layers = big.empty_state(1).layers
        attention = (layer for layer in layers if isinstance(layer, AttentionState | RoundedState))
        sizes.append(sum(t.numel() * t.element_size() for layer in attention for t in layer))
    assert sizes == [8 * 2048 * 256 * 2 * 2, 8 * 2048 * (256 + 4) * 2]


def test_a_number_is_off_by_half_a_step_of_its_tokens_largest_at_most():
    x = torch.randn(2, 5, 2, 8) * torch.tensor([1e-3, 1, 40, 1e5, 0])[:, None, None]
    found = rounded(x)
    step = x.abs().amax(-1, keepdim=True) / 127
    assert ((restored(found, torch.float32) - x).abs() <= step * 0.5001).all()
    assert found.q.dtype == torch.int8 and found.scale.shape == (2, 5, 2, 1)
    assert (restored(found, torch.float32)[:, 4] == 0).all()


@torch.no_grad()
def test_where_a_text_is_cut_changes_nothing():
    """A token's own key is rounded like all others: a call of one sees what a call of all saw."""
    lm = model()
    whole, end = lm(TOKENS)
    for sizes in ([1, 7, 20, 12], [1] * 40):
        state, pieces = None, []
        for part in TOKENS.split(sizes, dim=1):
            logits, state = lm(part, state=state, donate=state is not None)
            pieces.append(logits)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)
        for a, b in zip(rings(state), rings(end), strict=True):
            assert (a.k.int() - b.k.int()).abs().max() <= 1  # another order of sums, another side


@torch.no_grad()
def test_logits_are_near_those_of_the_plain_cache_and_not_the_same():
    plain, _ = model("auto")(TOKENS)
    found, _ = model()(TOKENS)
    off = (found - plain).abs().max() / plain.abs().max()
    assert 0 < off < 0.02


@torch.no_grad()
def test_gaps_and_rows_without_a_token():
    lm = model()
    valid = torch.rand(TOKENS.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    valid[2] = False
    _, before = lm(TOKENS)
    logits, after = lm(TOKENS, valid=valid, state=before)
    assert same(before[2], after[2])
    alone, _ = lm(TOKENS[:1][valid[:1]][None], state=before[0])
    torch.testing.assert_close(logits[0][valid[0]], alone[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_rows_are_picked_joined_and_put_like_those_of_any_state():
    lm, other = model(), model("auto")
    _, state = lm(TOKENS)
    again = griffin.State.concat([state[2], state[:2]])
    assert same(again[[1, 2, 0]], state)
    assert same(state.clone().put([0], state[1])[0], state[1])
    _, plain = other(TOKENS)
    with pytest.raises(StateError, match="different shapes"):
        state.put([0], plain[0])


@torch.no_grad()
def test_a_saved_state_goes_on_where_it_was_and_only_with_the_same_cache(tmp_path):
    lm = model()
    _, state = lm(TOKENS)
    state.save(tmp_path / "a.state")
    back = griffin.State.load(tmp_path / "a.state", lm)
    assert same(back, state)
    assert torch.equal(lm(TOKENS, state=back)[0], lm(TOKENS, state=state)[0])
    plain = model("auto")
    with pytest.raises(
        StateError, match=r"in int8, .* in float32; load the model with cache='int8'"
    ):
        griffin.State.load(tmp_path / "a.state", plain)
    plain(TOKENS)[1].save(tmp_path / "b.state")
    with pytest.raises(StateError, match=r"in float32, .* in int8"):
        griffin.State.load(tmp_path / "b.state", lm)


def test_it_is_an_option_of_load_and_generation_uses_it():
    lm = griffin.load("fledgling", cache="int8", dtype="float32")
    out = lm.generate("A memo: the number is 7. What is", max_new_tokens=4)
    assert rings(out.state) and len(out.tokens) == 4
    with pytest.raises(ConfigError, match="none of"):
        griffin.load("fledgling", cache="int3")


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64), ids=str)
@torch.no_grad()
def test_any_dtype(dtype):
    logits, state = model(dtype=dtype)(TOKENS)
    assert logits.dtype == dtype and logits.isfinite().all() and len(rings(state)) == 1
