"""OpenAI's own client against a live server: every answer is the one that `generate` gives."""

import asyncio

import openai
import pytest
import torch

from griffin_lm.inference import GenerateOptions, Generation, LanguageModel
from griffin_lm.text import Turn, encode_turns
from tests.server.conftest import OTHER, Live

PROMPT = "The wind rose over the old house"
ASKED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is the key?"},
]
GREEDY = {"model": "fledgling", "temperature": 0}


def chat_ids(lm: LanguageModel, *texts: str) -> list[int]:
    """A conversation whose turns are, in turn, the user's and the model's."""
    roles = ["user", "model"]
    turns = [Turn(role=roles[i % 2], text=text) for i, text in enumerate(texts)]
    assert lm.tokenizer.turn is not None
    return encode_turns(lm.tokenizer, lm.tokenizer.turn, turns)


def generated(lm: LanguageModel, ids: list[int], **options) -> str:
    state = lm.model.empty_state(1)
    run = Generation(lm.model, lm.tokenizer, [ids], GenerateOptions(**options), state, lm.stop_ids)
    while not run.done:
        run.step()
    return run.outputs[0].text


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fledgling"]
    assert client.models.retrieve("fledgling").id == "fledgling"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


@pytest.mark.parametrize("options", [{}, {"seed": 7, "temperature": 0.8}, {"stop": ["e"]}], ids=str)
def test_a_completion_is_what_generate_gives(
    client: openai.OpenAI, fledgling: LanguageModel, options: dict
) -> None:
    out = client.completions.create(**GREEDY | options, prompt=PROMPT, max_tokens=5)
    alone = fledgling.generate(PROMPT, max_new_tokens=5, **options)
    assert out.choices[0].text == alone.text
    assert out.choices[0].finish_reason == alone.finish_reason
    assert out.usage is not None
    assert out.usage.prompt_tokens == len(fledgling.encode(PROMPT))
    assert out.usage.completion_tokens == len(alone.tokens)
    pieces = client.completions.create(**GREEDY | options, prompt=PROMPT, max_tokens=5, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == alone.text


def test_several_prompts_and_choices(client: openai.OpenAI, fledgling: LanguageModel) -> None:
    ids = fledgling.encode("She said")
    sampled = {"model": "fledgling", "temperature": 0.9, "seed": 3, "max_tokens": 5}
    out = client.completions.create(**sampled, prompt=[ids, fledgling.encode(PROMPT)], n=2)
    expected = [
        fledgling.generate(prompt, max_new_tokens=5, temperature=0.9, seed=seed).text
        for prompt in ("She said", PROMPT)
        for seed in (3, 4)
    ]
    assert [choice.text for choice in out.choices] == expected
    assert [choice.index for choice in out.choices] == [0, 1, 2, 3]


def test_echoed_logprobs_are_the_models_own(
    client: openai.OpenAI, fledgling: LanguageModel
) -> None:
    """As lm-eval's local-completions asks: token ids, echo, one alternative."""
    ids = fledgling.encode(PROMPT)
    out = client.completions.create(**GREEDY, prompt=ids, max_tokens=1, logprobs=1, echo=True)
    scores = out.choices[0].logprobs
    assert scores is not None and scores.token_logprobs is not None and scores.tokens is not None
    logits, _ = fledgling.model(torch.tensor([ids]))
    expected = logits[0, :-1].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert scores.token_logprobs[0] is None and len(scores.tokens) == len(ids) + 1
    got = torch.tensor(scores.token_logprobs[1 : len(ids)])
    assert torch.allclose(got, expected, atol=1e-4)
    assert out.choices[0].text.startswith(PROMPT)


def test_a_chat_is_written_in_the_models_turns(
    client: openai.OpenAI, fledgling: LanguageModel
) -> None:
    expected = generated(
        fledgling, chat_ids(fledgling, "Be brief.\n\nWhere is the key?"), max_new_tokens=5
    )
    out = client.chat.completions.create(**GREEDY, messages=ASKED, max_completion_tokens=5)
    assert out.choices[0].message.content == expected
    assert out.choices[0].message.role == "assistant"
    chunks = list(
        client.chat.completions.create(
            **GREEDY,
            messages=ASKED,
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(text) == expected
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].usage is not None and out.usage is not None
    assert chunks[-1].usage.completion_tokens == out.usage.completion_tokens


def test_logprobs_and_biases_in_a_chat(client: openai.OpenAI, fledgling: LanguageModel) -> None:
    token = fledgling.encode("the", bos=False)[-1]
    out = client.chat.completions.create(
        **GREEDY,
        messages=ASKED,
        max_tokens=3,
        logprobs=True,
        top_logprobs=2,
        logit_bias={str(token): 100},
    )
    assert out.choices[0].logprobs is not None and out.choices[0].logprobs.content is not None
    content = out.choices[0].logprobs.content
    assert len(content) == 3 and len({each.token for each in content}) == 1
    assert all(len(each.top_logprobs) == 2 for each in content)


def test_many_at_once_get_what_each_gets_alone(live: Live, fledgling: LanguageModel) -> None:
    prompts = ["The wind", "She said", "Once", "a", "Where"]

    async def ask_all() -> list[str]:
        async with live.client(openai.AsyncOpenAI) as client:
            outs = await asyncio.gather(
                *(
                    client.completions.create(**GREEDY, prompt=prompt, max_tokens=2 + i)
                    for i, prompt in enumerate(prompts)
                )
            )
            stream = await client.completions.create(
                **GREEDY, prompt="a", max_tokens=5, stream=True
            )
            streamed = [chunk.choices[0].text async for chunk in stream]
        return [out.choices[0].text for out in outs] + ["".join(streamed)]

    expected = [
        fledgling.generate(prompt, max_new_tokens=2 + i).text for i, prompt in enumerate(prompts)
    ]
    expected.append(fledgling.generate("a", max_new_tokens=5).text)
    assert asyncio.run(ask_all()) == expected


def test_a_second_request_with_the_same_beginning_finds_it(live: Live) -> None:
    client = live.client()
    long = "The wind rose over the old house, and nobody was there. " * 8
    ask = {**GREEDY, "max_tokens": 2}
    first = client.completions.create(**ask, prompt=long + "One")
    second = client.completions.create(**ask, prompt=long + "Two")
    again = client.completions.create(**ask, prompt=long + "One")
    found = [each.usage.prompt_tokens_details.cached_tokens for each in (first, second, again)]
    assert found[0] == 0 and found[1] > 64 and found[2] > 64
    assert again.choices[0].text == first.choices[0].text
    stranger = live.client(key=OTHER).completions.create(**ask, prompt=long + "One")
    assert stranger.usage.prompt_tokens_details.cached_tokens == 0


def test_a_response_goes_on_from_an_earlier_one(live: Live, fledgling: LanguageModel) -> None:
    client = live.client()
    ask = {**GREEDY, "max_output_tokens": 4}
    first = client.responses.create(**ask, input="Where is the key?")
    said = generated(fledgling, chat_ids(fledgling, "Where is the key?"), max_new_tokens=4)
    assert first.output_text == said
    second = client.responses.create(**ask, input="And the door?", previous_response_id=first.id)
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens
    ids = chat_ids(fledgling, "Where is the key?", said, "And the door?")
    assert second.usage.input_tokens == len(ids)
    assert second.output_text == generated(fledgling, ids, max_new_tokens=4)
    assert client.responses.retrieve(second.id).output_text == second.output_text
    client.responses.delete(second.id)
    for gone in (second.id, "resp_nothing"):
        with pytest.raises(openai.NotFoundError):
            client.responses.create(**ask, input="x", previous_response_id=gone)
    with pytest.raises(openai.NotFoundError):
        live.client(key=OTHER).responses.retrieve(first.id)


def test_a_response_streams_the_events_that_the_client_knows(client: openai.OpenAI) -> None:
    whole = client.responses.create(**GREEDY, input="Where?", max_output_tokens=3)
    assert whole.status == "incomplete"
    with client.responses.stream(**GREEDY, input="Where?", max_output_tokens=3) as stream:
        events = list(stream)
    assert events[-1].type == "response.incomplete"
    final = events[-1].response
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text == whole.output_text
    assert [event.sequence_number for event in events] == sorted(
        event.sequence_number for event in events
    )
