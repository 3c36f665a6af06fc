"""Generation: rows that end by themselves, continuing as if never interrupted, cut-off text."""

import pytest
import torch

from griffin_lm.errors import InputError, StateError
from griffin_lm.inference import LanguageModel, Output, read_tokens
from griffin_lm.models import State, build

PROMPTS = ["The wind rose", "", "Where is the key? It lies beneath the stone by the garden door."]
SAMPLED = {"temperature": 0.9, "seed": 4}
HOT = {"temperature": 1.5}  # many bytes that are no characters, many markers


def same(left: Output, right: Output) -> None:
    """Everything but the states is equal."""
    assert (left.text, left.tokens, left.finish_reason) == (
        right.text,
        right.tokens,
        right.finish_reason,
    )


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    """Equal logits, but for the rounding of fp32."""
    assert (left - right).abs().max() <= 1e-5 * left.abs().max()


def next_logits(lm: LanguageModel, state: State) -> torch.Tensor:
    """What the model expects after a state, its pending token included."""
    nothing = torch.zeros(state.batch_size, 1, dtype=torch.int64)
    logits, _ = lm.model(nothing, valid=nothing.bool(), state=state, logits="last")
    return logits


def reading(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    """What the model expects after reading ids in one go."""
    return lm.model(torch.tensor([ids]), logits="last")[0]


def test_greedy_tokens_are_the_likeliest_after_everything_before(lm: LanguageModel) -> None:
    ids = lm.encode("The wind rose")
    for token in lm.generate("The wind rose", max_new_tokens=12).tokens:
        assert token == reading(lm, ids).argmax().item()
        ids.append(token)


@pytest.mark.parametrize("sampling", [{}, SAMPLED, HOT | {"seed": 1}], ids=["greedy", "0.9", "1.5"])
def test_a_ragged_batch_is_each_prompt_by_itself(lm: LanguageModel, sampling: dict) -> None:
    together = lm.generate(PROMPTS, max_new_tokens=25, **sampling)
    for prompt, out in zip(PROMPTS, together, strict=True):
        alone = lm.generate(prompt, max_new_tokens=25, **sampling)
        same(out, alone)
        assert torch.equal(out.state.tokens, alone.state.tokens)
        close(next_logits(lm, out.state), next_logits(lm, alone.state))


def test_prompts_longer_than_a_chunk_are_read_whole(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lm.generate(PROMPTS, max_new_tokens=8)
    monkeypatch.setattr("griffin_lm.inference.reading.CHUNK", 5)
    from griffin_lm.inference import reading as module

    monkeypatch.setattr(module.read_rows, "__kwdefaults__", {"donate": False, "chunk": 5})
    for chunked, out in zip(lm.generate(PROMPTS, max_new_tokens=8), whole, strict=True):
        same(chunked, out)


def test_each_row_has_its_own_seed(lm: LanguageModel) -> None:
    rows = lm.generate(["The wind"] * 3, max_new_tokens=20, temperature=1.0, seed=[1, 2, 1])
    assert rows[0].tokens == rows[2].tokens != rows[1].tokens
    alone = lm.generate("The wind", max_new_tokens=20, temperature=1.0, seed=2)
    assert alone.tokens == rows[1].tokens


def test_one_seed_goes_to_every_row_and_none_is_different_every_time(lm: LanguageModel) -> None:
    one = lm.generate(["She said"] * 2, max_new_tokens=20, temperature=1.0, seed=9)
    assert one[0].tokens == one[1].tokens
    none = lm.generate(["She said"] * 2, max_new_tokens=20, temperature=1.0)
    assert none[0].tokens != none[1].tokens


@pytest.mark.parametrize("sampling", [{}, SAMPLED, HOT | {"seed": 2}], ids=["greedy", "0.9", "1.5"])
@pytest.mark.parametrize("cut", [1, 2, 17])
def test_continuing_is_as_if_never_interrupted(lm: LanguageModel, sampling: dict, cut: int) -> None:
    whole = lm.generate("The wind rose", max_new_tokens=30, **sampling)
    first = lm.generate("The wind rose", max_new_tokens=cut, **sampling)
    second = lm.generate("", max_new_tokens=30 - cut, state=first.state, **sampling)
    assert first.tokens + second.tokens == whole.tokens
    assert second.state.tokens.tolist() == whole.state.tokens.tolist()
    assert torch.equal(next_logits(lm, second.state), next_logits(lm, whole.state))


def test_a_state_survives_a_file_and_continues(lm: LanguageModel, tmp_path) -> None:
    whole = lm.generate("The wind rose", max_new_tokens=20, **SAMPLED)
    lm.generate("The wind rose", max_new_tokens=9, **SAMPLED).state.save(tmp_path / "state")
    state = State.load(tmp_path / "state", lm)
    assert lm.generate("", max_new_tokens=11, state=state, **SAMPLED).tokens == whole.tokens[9:]


def test_the_state_given_is_not_changed(lm: LanguageModel) -> None:
    state = lm.generate("The wind", max_new_tokens=3).state
    before = next_logits(lm, state)
    first = lm.generate(" and then", max_new_tokens=9, state=state)
    second = lm.generate(" and then", max_new_tokens=9, state=state)
    assert first.tokens == second.tokens
    assert torch.equal(next_logits(lm, state), before)


@pytest.mark.parametrize("options", [{}, SAMPLED | {"stop": ["e"]}, {"max_new_tokens": 0}], ids=str)
def test_the_state_stands_for_the_prompt_and_all_tokens(lm: LanguageModel, options: dict) -> None:
    for prompt in PROMPTS:
        out = lm.generate(prompt, **({"max_new_tokens": 15} | options))
        ids = lm.encode(prompt) + out.tokens
        assert out.state.tokens.tolist() == [len(ids)]
        assert out.state.pending is not None and out.state.pending.tolist() == ids[-1:]
        close(next_logits(lm, out.state), reading(lm, ids))


def test_a_state_of_one_row_is_forked_to_every_prompt(lm: LanguageModel) -> None:
    state = lm.generate("The wind", max_new_tokens=3).state
    forked = lm.generate([" rose", " and the old house"], max_new_tokens=9, state=state)
    for prompt, out in zip([" rose", " and the old house"], forked, strict=True):
        same(out, lm.generate(prompt, max_new_tokens=9, state=state))


def test_rows_of_a_state_go_on_each_by_itself(lm: LanguageModel) -> None:
    outs = lm.generate(PROMPTS, max_new_tokens=4)
    joined = State.concat([out.state for out in outs])
    going_on = lm.generate(["", " again", ""], max_new_tokens=9, state=joined)
    for prompt, out, after in zip(["", " again", ""], outs, going_on, strict=True):
        same(after, lm.generate(prompt, max_new_tokens=9, state=out.state))


def test_bos_stands_only_before_an_empty_state(lm: LanguageModel) -> None:
    assert lm.generate("", max_new_tokens=0).state.tokens.tolist() == [1]
    fresh = lm.generate("The", max_new_tokens=0).state
    assert fresh.tokens.item() == len(lm.encode("The"))
    more = lm.generate(" wind", max_new_tokens=0, state=fresh).state
    assert more.tokens.item() == fresh.tokens.item() + len(lm.encode(" wind", bos=False))


def test_the_first_sampled_token_may_be_eos(lm: LanguageModel, stops_at) -> None:
    free = [lm.generate(prompt, max_new_tokens=6) for prompt in PROMPTS]
    stops_at(free[0].tokens[0])
    outs = lm.generate(PROMPTS, max_new_tokens=6)
    assert outs[0].tokens == free[0].tokens[:1] and outs[0].text == ""
    assert outs[0].finish_reason == "stop"
    assert outs[0].state.tokens.tolist() == [len(lm.encode(PROMPTS[0])) + 1]


def test_rows_stop_by_themselves_and_do_not_hold_up_or_end_the_others(
    lm: LanguageModel, stops_at
) -> None:
    options = {"max_new_tokens": 30, "temperature": 1.0, "seed": [0, 1, 2, 3]}
    free = lm.generate(["The wind"] * 4, **options)
    eos = free[2].tokens[7]
    stops_at(eos)
    lengths = set()
    for out, whole in zip(lm.generate(["The wind"] * 4, **options), free, strict=True):
        end = whole.tokens.index(eos) + 1 if eos in whole.tokens else 30
        assert out.tokens == whole.tokens[:end]
        assert out.finish_reason == ("stop" if eos in whole.tokens else "length")
        lengths.add(end)
        ids = lm.encode("The wind") + out.tokens
        close(next_logits(lm, out.state), reading(lm, ids))
    assert len(lengths) > 1, "the test is about rows of different lengths"


def test_end_of_turn_stands_in_the_tokens_and_not_in_the_text(lm: LanguageModel, stops_at) -> None:
    free = lm.generate("The wind", max_new_tokens=20, temperature=1.0, seed=3)
    stops_at(free.tokens[10])
    out = lm.generate("The wind", max_new_tokens=20, temperature=1.0, seed=3)
    end = free.tokens.index(free.tokens[10]) + 1
    assert out.tokens == free.tokens[:end]
    assert out.text == lm.tokenizer.decode(free.tokens[: end - 1], continues=True)


def test_a_stop_string_is_found_across_token_borders(lm: LanguageModel) -> None:
    """Every string of two or three characters of a text, whatever the tokens are."""
    options = {"max_new_tokens": 25, "temperature": 1.0}
    across = 0
    for seed in range(2):
        free = lm.generate("The wind", seed=seed, **options)
        for start in range(seed, len(free.text) - 2, 4):
            stop = free.text[start : start + 2 + start // 2 % 2]
            out = lm.generate("The wind", seed=seed, stop=stop, **options)
            assert out.text == free.text[: free.text.index(stop)]
            assert out.finish_reason == "stop"
            check_cut(lm, "The wind", out, free)
            across += all(
                stop not in lm.tokenizer.decode([token], continues=True) for token in free.tokens
            )
    assert across > 5


def check_cut(lm: LanguageModel, prompt: str, out: Output, free: Output) -> None:
    """The tokens of a stopped row: as many as lie before the stop string; the state fits them."""
    count = len(out.tokens)
    assert out.tokens == free.tokens[:count]
    kept = lm.tokenizer.decode(out.tokens, continues=True)
    assert out.text.startswith(kept)
    one_more = lm.tokenizer.decode(free.tokens[: count + 1], continues=True)
    assert len(one_more) > len(out.text) or not out.text.startswith(one_more)
    ids = lm.encode(prompt) + out.tokens
    assert out.state.tokens.tolist() == [len(ids)]
    close(next_logits(lm, out.state), reading(lm, ids))


def test_stop_strings_do_not_change_what_is_generated_before(lm: LanguageModel) -> None:
    options = {"max_new_tokens": 40, "temperature": 1.0, "seed": 8}
    free = lm.generate(PROMPTS, **options)
    for out, whole in zip(lm.generate(PROMPTS, stop="never said", **options), free, strict=True):
        same(out, whole)


def test_a_stop_string_of_one_row_leaves_the_others_alone(lm: LanguageModel) -> None:
    options = {"max_new_tokens": 25, "temperature": 1.0, "seed": [0, 1, 2]}
    free = lm.generate(["The wind"] * 3, **options)
    stop = free[1].text[6:9]
    for out, whole in zip(lm.generate(["The wind"] * 3, stop=[stop], **options), free, strict=True):
        assert out.text == whole.text.split(stop)[0]
        assert out.finish_reason == ("stop" if stop in whole.text else "length")
        check_cut(lm, "The wind", out, whole) if stop in whole.text else same(out, whole)


def test_few_states_are_kept_while_stop_strings_are_looked_for(lm: LanguageModel) -> None:
    from griffin_lm.inference import GenerateOptions

    options = GenerateOptions(max_new_tokens=200, temperature=1.5, seed=1, stop=("never said",))
    run = lm.start(["The wind", "She said"], options)
    most = 0
    while not run.done:
        run.step()
        most = max(most, len(run._past))
    assert most <= 16


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stop", [(), ("e", "th"), ("the wind", "�", " ")], ids=str)
def test_a_stream_is_what_generate_returns(lm: LanguageModel, seed: int, stop: tuple) -> None:
    options = {"max_new_tokens": 40, "temperature": 1.5, "seed": seed, "stop": stop}
    stream = lm.stream("The wind", logprobs=True, **options)
    pieces = list(stream)
    whole = lm.generate("The wind", logprobs=True, **options)
    assert "".join(pieces) == whole.text
    assert all(pieces)
    same(stream.output, whole)
    assert stream.output.logprobs == whole.logprobs
    assert torch.equal(next_logits(lm, stream.output.state), next_logits(lm, whole.state))


def test_a_stream_comes_in_pieces_and_may_be_left_or_cancelled(lm: LanguageModel) -> None:
    whole = lm.generate("The wind", max_new_tokens=30, **SAMPLED)
    stream = lm.stream("The wind", max_new_tokens=30, **SAMPLED)
    pieces = [next(stream), next(stream)]
    with pytest.raises(InputError, match="still going on"):
        _ = stream.output
    text = "".join(pieces) + stream.cancel()
    out = stream.output
    assert out.finish_reason == "cancelled" and out.text == text
    assert out.tokens == whole.tokens[: len(out.tokens)] and len(out.tokens) < 30
    rest = lm.generate("", max_new_tokens=30 - len(out.tokens), state=out.state, **SAMPLED)
    assert out.tokens + rest.tokens == whole.tokens
    assert list(stream) == []


def test_logprobs_are_of_the_tokens_returned(lm: LanguageModel) -> None:
    out = lm.generate("The wind", max_new_tokens=6, temperature=1.3, top_k=5, seed=1, logprobs=True)
    ids = lm.encode("The wind")
    for token, logprob in zip(out.tokens, out.logprobs or [], strict=True):
        expected = reading(lm, ids)[0].log_softmax(-1)[token].item()
        assert logprob == pytest.approx(expected, abs=1e-5)
        ids.append(token)
    assert lm.generate("The wind", max_new_tokens=2).logprobs is None


def test_the_repetition_penalty_sees_this_calls_tokens_only(lm: LanguageModel, stops_at) -> None:
    stops_at()
    strong = {"max_new_tokens": 25, "repetition_penalty": 1e9}
    out = lm.generate("The wind", **strong)
    assert len(set(out.tokens)) == 25 and not set(out.tokens) & set(lm.encode("The wind"))
    again = lm.generate("", state=out.state, **strong)
    assert set(again.tokens) & set(out.tokens)


def test_no_new_tokens_reads_the_prompt_and_says_length(lm: LanguageModel) -> None:
    out = lm.generate("The wind rose", max_new_tokens=0)
    assert (out.text, out.tokens, out.finish_reason) == ("", [], "length")
    rest = lm.generate("", max_new_tokens=9, state=out.state)
    same(rest, lm.generate("The wind rose", max_new_tokens=9))


def test_no_prompts_give_no_outputs(lm: LanguageModel) -> None:
    assert lm.generate([], max_new_tokens=4) == []


def test_markers_become_ids_only_when_asked(lm: LanguageModel) -> None:
    plain = lm.generate("<user>Where?<model>", max_new_tokens=0).state.tokens.item()
    marked = lm.generate("<user>Where?<model>", max_new_tokens=0, markers=True).state.tokens.item()
    assert marked == len(lm.tokenizer.encode("<user>Where?<model>", markers=True)) < plain


def test_reading_in_chunks_equals_a_prompt(lm: LanguageModel) -> None:
    ids = lm.encode(PROMPTS[2] * 3)
    sizes = []
    state = read_tokens(
        lm.model, iter(ids), chunk=7, on_chunk=lambda state: sizes.append(state.tokens.item())
    )
    assert sizes == [*range(7, len(ids), 7), len(ids)]
    expected = lm.generate(PROMPTS[2] * 3, max_new_tokens=5)
    same(lm.generate("", max_new_tokens=5, state=state), expected)
    parts = read_tokens(lm.model, ids[11:], read_tokens(lm.model, ids[:11], chunk=3), chunk=4)
    same(lm.generate("", max_new_tokens=5, state=parts), expected)


def test_reading_nothing_changes_nothing(lm: LanguageModel) -> None:
    state = lm.generate("The wind", max_new_tokens=0).state
    assert read_tokens(lm.model, [], state) is state
    with pytest.raises(InputError, match="empty"):
        read_tokens(lm.model, [])
    with pytest.raises(InputError, match="2"):
        read_tokens(lm.model, [5], lm.model.empty_state(2))


class TestRefusals:
    """What can't be meant is refused, with the way on."""

    def test_an_empty_prompt_without_bos(self, lm: LanguageModel, monkeypatch) -> None:
        monkeypatch.setattr(lm.tokenizer, "bos_id", None)
        with pytest.raises(InputError, match=r"empty.*BOS"):
            lm.generate("")

    def test_a_state_without_a_pending_token_and_no_prompt(self, lm: LanguageModel) -> None:
        _, state = lm.model(torch.tensor([lm.encode("The wind")]))
        with pytest.raises(InputError, match="nothing to go on from"):
            lm.generate("", state=state)
        assert lm.generate(" rose", max_new_tokens=3, state=state).tokens

    def test_another_number_of_rows(self, lm: LanguageModel) -> None:
        with pytest.raises(InputError, match=r"3 prompts.* 2 rows"):
            lm.generate(PROMPTS, state=lm.model.empty_state(2))

    def test_a_state_of_another_model(self, lm: LanguageModel) -> None:
        other = LanguageModel(build(lm.config, seed=99), lm.tokenizer)
        with pytest.raises(StateError, match="another model"):
            lm.generate("x", state=other.generate("The", max_new_tokens=1).state)

    def test_an_empty_stop_string_and_a_negative_length(self, lm: LanguageModel) -> None:
        with pytest.raises(InputError, match="stop string"):
            lm.generate("x", stop=["a", ""])
        with pytest.raises(InputError, match="max_new_tokens"):
            lm.generate("x", max_new_tokens=-1)

    def test_a_stream_refuses_before_its_first_piece(self, lm: LanguageModel) -> None:
        with pytest.raises(InputError, match="top_p"):
            lm.stream("x", top_p=2.0)
