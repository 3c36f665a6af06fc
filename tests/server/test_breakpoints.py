"""`prompt_cache_breakpoint`: who marks the same place again finds all that was read up to there."""

from typing import Any

import openai
import pytest

from griffin_lm.inference import LanguageModel
from griffin_lm.text import FLEDGLING, Turn, encode_turns
from tests.server.conftest import Live, running
from tests.server.test_openai import GREEDY, chat_ids, generated

MARK = {"mode": "explicit"}
TEXT = "The wind rose over the old house, and nobody was there to hear it.\n" * 6
ASK = GREEDY | {"max_output_tokens": 3}
# longer than all that the cache chooses by itself at the end of a prompt
QUESTIONS = ["Where is the key? " * 40, "Who has the door? " * 40]


@pytest.fixture
def client(fledgling: LanguageModel, tmp_path: Any):
    """Of a server whose cache is empty."""
    with (
        running(fledgling, state_dir=tmp_path, chunk=32) as live,
        live.client(key="none") as client,
    ):
        yield client


def part(text: str, mark: Any = None, kind: str = "input_text") -> dict[str, Any]:
    more = {} if mark is None else {"prompt_cache_breakpoint": mark}
    return {"type": kind, "text": text, **more}


def message(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def place_after(lm: LanguageModel, text: str) -> int:
    """Tokens of a conversation up to the end of its first text."""
    turns = [Turn(role="user", text=text)]
    place = len(encode_turns(lm.tokenizer, FLEDGLING, turns, open_model=False))
    assert place % 32, "where no chunk ends"
    return place


def test_the_beginning_up_to_a_breakpoint_is_read_once(
    client: openai.OpenAI, fledgling: LanguageModel
) -> None:
    place = place_after(fledgling, TEXT)
    marked = [[message(part(TEXT, MARK), part(question))] for question in QUESTIONS]
    first, second = (client.responses.create(**ASK, input=each) for each in marked)
    assert first.usage.input_tokens_details.cached_tokens == 0
    assert place < first.usage.input_tokens_details.cache_write_tokens < first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens == place
    assert second.usage.input_tokens_details.cache_write_tokens > 0
    for out, question in zip((first, second), QUESTIONS, strict=True):
        ids = chat_ids(fledgling, TEXT + question)
        assert out.usage.input_tokens == len(ids), "a mark changes no token"
        assert out.output_text == generated(fledgling, ids, max_new_tokens=3)
    other = client.responses.create(**ASK, input=[message(part(TEXT), part("What is it?"))])
    assert other.usage.input_tokens_details.cached_tokens == place // 32 * 32


def test_instructions_and_earlier_turns_may_end_in_one(
    client: openai.OpenAI, fledgling: LanguageModel
) -> None:
    rules, long = TEXT.strip(), TEXT.upper()
    place = place_after(fledgling, rules)
    asked = [
        [
            message(part(rules, MARK), role="developer"),
            message(part(long, MARK)),
            message(part("Nobody.", kind="output_text"), role="assistant"),
            message(part(question)),
        ]
        for question in QUESTIONS
    ]
    client.responses.create(**ASK, input=asked[0])
    with client.responses.stream(**ASK, input=asked[1]) as stream:
        second = list(stream)[-1].response
    turns = [Turn(role="user", text=f"{rules}\n\n{long}")]
    whole = len(encode_turns(fledgling.tokenizer, FLEDGLING, turns, open_model=False))
    opened = [*turns, Turn(role="model", text="Nobody."), Turn(role="user", text="")]
    most = len(encode_turns(fledgling.tokenizer, FLEDGLING, opened, open_model=False))
    assert whole <= second.usage.input_tokens_details.cached_tokens <= most
    other = [message(part(rules, MARK), role="developer"), message(part(QUESTIONS[0]))]
    third = client.responses.create(**ASK, input=other)
    assert third.usage.input_tokens_details.cached_tokens == place


def test_chats_take_breakpoints_too(client: openai.OpenAI, fledgling: LanguageModel) -> None:
    place = place_after(fledgling, TEXT)
    for question, cached in zip(QUESTIONS, (0, place), strict=True):
        content = [part(TEXT, MARK, "text"), part(question, kind="text")]
        out = client.chat.completions.create(
            **GREEDY, messages=[{"role": "user", "content": content}], max_tokens=3
        )
        assert out.usage.prompt_tokens_details.cached_tokens == cached


def test_a_token_that_reaches_over_a_breakpoint_is_left_whole(
    client: openai.OpenAI, fledgling: LanguageModel
) -> None:
    ids = chat_ids(fledgling, TEXT + "house and" + QUESTIONS[0])
    for cached in (False, True):
        cut = [message(part(TEXT + "hou", MARK), part("se and" + QUESTIONS[0]))]
        out = client.responses.create(**ASK, input=cut)
        assert out.usage.input_tokens == len(ids)
        assert (out.usage.input_tokens_details.cached_tokens > 0) == cached


@pytest.mark.parametrize("mark", [{"mode": "implicit"}, {}, {"mode": "explicit", "ttl": "12h"}, 1])
def test_what_is_no_breakpoint_is_refused(live: Live, mark: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="prompt_cache_breakpoint"):
        live.client().responses.create(**ASK, input=[message(part("a", mark))])


def test_too_many_breakpoints_are_refused(live: Live) -> None:
    many = [message(*[part("a", MARK)] * 81)]
    with pytest.raises(openai.BadRequestError, match="81 breakpoints"):
        live.client().responses.create(**ASK, input=many)
