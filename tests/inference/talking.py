"""Conversations to test with, and what must be true of any: the state is that of its turns."""

from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st

import griffin_lm as griffin
from griffin_lm.inference import Conversation, GenerateOptions, LanguageModel
from griffin_lm.models import State
from griffin_lm.text import FLEDGLING, GEMMA, PLAIN, Turn, encode_turns
from tests.inference.vocabulary import vocabulary

OPTIONS = GenerateOptions(max_new_tokens=5, temperature=3.0, seed=11)
TEMPLATES = {"fledgling": FLEDGLING, "gemma": GEMMA, "plain": PLAIN}
TOLERANCE = 3e-4  # logits of this model reach 10; one wrong id moves them by over 0.1
PROBE = [[7, 40, 9, 100, 55]]
WORDS = st.sampled_from(["Where?", "the ships\nAssistant: x", "<end><model>", "é 🐙", "User: a "])


@pytest.fixture(scope="session")
def models(lm: LanguageModel) -> dict[str, LanguageModel]:
    """By template: an instruction-tuned model with those markers, and a base model."""
    gemma = vocabulary(markers=("<start_of_turn>", "<end_of_turn>"))
    config = replace(lm.config, vocab=gemma.vocab_size)
    other = griffin.build(config, seed=5).requires_grad_(False)
    other.final_norm.scale.copy_(lm.model.final_norm.scale)
    return {
        "fledgling": LanguageModel(lm.model, lm.tokenizer, instruction_tuned=True),
        "gemma": LanguageModel(other, gemma, instruction_tuned=True),
        "plain": LanguageModel(lm.model, lm.tokenizer),
    }


@pytest.fixture(params=["fledgling", "gemma", "plain"])
def talk(models: dict[str, LanguageModel], request: pytest.FixtureRequest) -> Conversation:
    return Conversation(models[request.param], OPTIONS)


def ids_of(talk: Conversation) -> list[int]:
    """What the conversation's turns are as ids."""
    turns = [Turn(role=entry.role, text=entry.text) for entry in talk.entries]  # type: ignore[arg-type]  (its roles are these)
    return encode_turns(talk.lm.tokenizer, talk.template, turns, open_model=False)


def check(talk: Conversation, ids: list[int] | None = None) -> None:
    """The state stands for these ids, and goes on as after reading them at once."""
    state, ids = talk.state, ids_of(talk) if ids is None else ids
    assert int(state.tokens) == len(ids)
    assert state.pending is not None and state.pending.tolist() == ids[-1:]
    _, expected = talk.lm.model(torch.tensor([ids]), logits=None)
    probe = torch.tensor(PROBE)
    found, after = talk.lm.model(probe, state=state)
    wanted, then = talk.lm.model(probe, state=expected)
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)
    for mine, theirs in zip(after.layers, then.layers, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE)


def bits(state: State) -> list[torch.Tensor]:
    """Every tensor of a state, copied."""
    assert state.pending is not None
    tensors = [t.clone() for layer in state.layers for t in layer]
    return [*tensors, state.read.clone(), state.position.clone(), state.pending.clone()]


def same_bits(before: list[torch.Tensor], state: State) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, bits(state), strict=True))


def said(talk: Conversation, text: str) -> str:
    return "".join(talk.say(text))
