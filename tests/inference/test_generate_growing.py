"""Generation by models whose state grows: from nothing, from long states, from forks and files."""

from dataclasses import replace

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from griffin_lm.models import State
from tests.inference.test_generate import PROMPTS, SAMPLED, reading, same
from tests.inference.vocabulary import vocabulary

BOOK = "The key lies beneath the stone by the garden door, where the wind rose. " * 12


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-gemma", "tiny-mqa"])
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    config = replace(griffin.PRESETS[request.param], vocab=vocabulary().vocab_size, tied=False)
    return LanguageModel(griffin.build(config, seed=3).requires_grad_(False), vocabulary())


@pytest.fixture(autouse=True)
def nothing_ends(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models say "end" early; here they go on, so that states get long."""
    monkeypatch.setattr(lm.tokenizer, "stop_ids", ())


def test_a_ragged_batch_is_each_prompt_by_itself(lm: LanguageModel) -> None:
    prompts = [*PROMPTS, BOOK]
    together = lm.generate(prompts, max_new_tokens=20, **SAMPLED)
    for prompt, out in zip(prompts, together, strict=True):
        same(out, lm.generate(prompt, max_new_tokens=20, **SAMPLED))


def test_greedy_tokens_are_the_likeliest_after_everything_before(lm: LanguageModel) -> None:
    for prompt in ("", BOOK):
        ids = lm.encode(prompt)
        for token in lm.generate(prompt, max_new_tokens=8).tokens:
            assert token == reading(lm, ids).argmax().item()
            ids.append(token)


@pytest.mark.parametrize("prompt", ["", BOOK], ids=["from nothing", "from a long text"])
def test_forks_of_a_state_go_on_as_if_never_interrupted(lm: LanguageModel, prompt: str) -> None:
    whole = lm.generate(prompt, max_new_tokens=24, **SAMPLED)
    first = lm.generate(prompt, max_new_tokens=9, **SAMPLED)
    kept = first.state.clone()
    for _ in range(2):
        again = lm.generate("", max_new_tokens=15, state=first.state, **SAMPLED)
        assert first.tokens + again.tokens == whole.tokens
    assert first.state.tokens.tolist() == kept.tokens.tolist()
    for mine, exact in zip(first.state.layers, kept.layers, strict=True):
        assert torch.equal(mine.k, exact.k) and torch.equal(mine.v, exact.v)


def test_a_state_survives_a_file_and_continues(lm: LanguageModel, tmp_path) -> None:
    whole = lm.generate(BOOK, max_new_tokens=20, **SAMPLED)
    lm.generate(BOOK, max_new_tokens=9, **SAMPLED).state.save(tmp_path / "state")
    state = State.load(tmp_path / "state", lm)
    assert lm.generate("", max_new_tokens=11, state=state, **SAMPLED).tokens == whole.tokens[9:]


def test_a_state_grows_by_what_it_says(lm: LanguageModel) -> None:
    short, long = (lm.generate(prompt, max_new_tokens=1).state for prompt in ("a", BOOK))
    read = int(long.position)
    assert long.compact().nbytes == short[:0].nbytes + 17 + read * long.bytes_per_token + 8
    assert long.nbytes - long.compact().nbytes < 256 * long.bytes_per_token
