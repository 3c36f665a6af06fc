"""The engine: what a request gets is the same alone and in any company, and slots come back."""

import random
from dataclasses import dataclass, field

import pytest
import torch

from griffin_lm.errors import InputError, Overloaded
from griffin_lm.inference import LanguageModel
from griffin_lm.inference.engine import (
    Engine,
    EngineThread,
    Event,
    Failed,
    Finished,
    Job,
    Piece,
    Request,
    RowOptions,
)
from griffin_lm.models import State
from griffin_lm.ops import native

PROMPTS = ["The wind rose", "a", "Where is the key? It lies beneath the stone by the garden door."]
SAMPLINGS = [{}, {"temperature": 0.9, "seed": 4}, {"temperature": 1.5, "seed": 1, "top_k": 20}]


@dataclass
class Heard:
    """Everything that a request reported."""

    events: list[Event] = field(default_factory=list[Event])

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def end(self) -> Finished:
        (end,) = [event for event in self.events if not isinstance(event, Piece)]
        assert isinstance(end, Finished), end
        assert end is self.events[-1]
        return end

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Piece))

    @property
    def ids(self) -> list[int]:
        return [token.token for token in self.end.tokens]


def ask(engine: Engine, prompt: str, **options) -> tuple[Job, Heard]:
    heard = Heard()
    more = {
        name: options.pop(name)
        for name in ("owner", "keep_state", "state", "seconds", "score_prompt")
        if name in options
    }
    ids = engine.lm.encode(prompt, bos="state" not in more)
    return engine.submit(Request(ids=ids, options=RowOptions(**options), **more), heard), heard


@pytest.fixture
def engine(lm: LanguageModel) -> Engine:
    return Engine(lm, slots=3, queue=50, chunk=8)


def test_requests_in_company_get_what_generate_gives_each_alone(engine: Engine) -> None:
    """Random arrivals, lengths, options and cancellations, many more than there are slots."""
    lm, rng = engine.lm, random.Random(5)
    asked = []
    for _ in range(12):
        sampling = {"max_new_tokens": rng.randrange(1, 9), **rng.choice(SAMPLINGS)}
        if rng.random() < 0.3:
            sampling["stop"] = ["e", "th"]
        prompt = rng.choice(PROMPTS)
        job, heard = ask(engine, prompt, **sampling, owner=rng.choice("ab"))
        asked.append((job, heard, prompt, sampling))
        for _ in range(rng.randrange(4)):
            engine.step()
        if rng.random() < 0.2:
            rng.choice(asked)[0].cancel()
    engine.run_until_idle()
    assert engine.running == engine.waiting == 0
    for job, heard, prompt, sampling in asked:
        alone = lm.generate(prompt, **sampling)
        if heard.end.reason == "cancelled":
            assert job.cancelled and heard.ids == alone.tokens[: len(heard.ids)]
        else:
            assert heard.ids == alone.tokens
            assert heard.end.reason == alone.finish_reason
            assert heard.text == heard.end.text == alone.text


@pytest.mark.parametrize("stop", [(), ("e", "th")], ids=["length", "stop"])
def test_the_state_it_keeps_goes_on_as_generate_does(engine: Engine, stop: tuple) -> None:
    lm = engine.lm
    others = [ask(engine, prompt, max_new_tokens=9) for prompt in PROMPTS[:2]]
    _, first = ask(engine, PROMPTS[2], max_new_tokens=5, stop=stop, keep_state=True)
    engine.run_until_idle()
    state = first.end.state
    alone = lm.generate(PROMPTS[2], max_new_tokens=5, stop=stop)
    assert state is not None and others[0][1].ids
    assert torch.equal(state.tokens, alone.state.tokens)
    _, second = ask(engine, " and", state=state, max_new_tokens=3)
    engine.run_until_idle()
    assert second.ids == lm.generate(" and", state=alone.state, max_new_tokens=3).tokens


def test_reading_alone_leaves_a_state_and_no_text(engine: Engine) -> None:
    _, heard = ask(engine, PROMPTS[2], max_new_tokens=0, keep_state=True)
    engine.run_until_idle()
    assert heard.end.text == "" and heard.end.state is not None
    expected = engine.lm.generate(PROMPTS[2], max_new_tokens=0).state
    assert heard.end.state.tokens.tolist() == expected.tokens.tolist()
    going = engine.lm.generate("", state=heard.end.state, max_new_tokens=6)
    assert going.tokens == engine.lm.generate("", state=expected, max_new_tokens=6).tokens


def test_a_long_prompt_does_not_hold_up_the_others(engine: Engine) -> None:
    _, short = ask(engine, "a", max_new_tokens=3)
    engine.step()
    _, long = ask(engine, "word " * 200, max_new_tokens=1)
    for _ in range(3):
        engine.step()
    assert short.events and isinstance(short.events[-1], Finished)
    assert not long.events


def test_owners_take_turns_and_a_full_queue_refuses(lm: LanguageModel) -> None:
    engine = Engine(lm, slots=1, queue=3)
    order: list[str] = []
    for owner in "aaab":
        request = Request(ids=[1, 5], options=RowOptions(max_new_tokens=1), owner=owner)
        engine.submit(
            request,
            lambda event, owner=owner: order.append(owner) if isinstance(event, Finished) else None,
        )
    with pytest.raises(Overloaded):
        ask(engine, "one too many")
    engine.run_until_idle()
    assert order == ["a", "b", "a", "a"]
    assert engine.counters.refused == 1


def test_a_burst_is_taken_as_far_as_slots_are_free(lm: LanguageModel) -> None:
    engine = Engine(lm, slots=3, queue=2)
    heard = [ask(engine, "The wind")[1] for _ in range(5)]
    with pytest.raises(Overloaded):
        ask(engine, "one too many")
    engine.step()
    assert (engine.running, engine.waiting) == (3, 2)
    with pytest.raises(Overloaded):
        ask(engine, "one too many")
    engine.run_until_idle()
    assert engine.counters.refused == 2
    assert all(isinstance(each.events[-1], Finished) for each in heard)


def test_a_deadline_ends_a_request_with_what_it_has(engine: Engine) -> None:
    _, heard = ask(engine, "a", max_new_tokens=10, seconds=0.0)
    engine.run_until_idle()
    assert heard.end.reason == "deadline"


def test_scores_are_the_models_own_logprobs(engine: Engine) -> None:
    lm = engine.lm
    _, heard = ask(
        engine, PROMPTS[2], max_new_tokens=4, logprobs=True, top_logprobs=2, score_prompt=True
    )
    engine.run_until_idle()
    ids = lm.encode(PROMPTS[2]) + heard.ids
    logits, _ = lm.model(torch.tensor([ids]))
    expected = logits[0, :-1].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    scores = [*heard.end.prompt, *heard.end.tokens]
    assert [score.token for score in scores] == ids[1:]
    assert torch.allclose(torch.tensor([score.logprob for score in scores]), expected, atol=1e-4)
    assert all(len(score.top) == 2 and score.top[0][1] >= score.logprob for score in scores)


def test_a_bias_and_penalties_move_the_choice(engine: Engine) -> None:
    _, plain = ask(engine, "a", max_new_tokens=8)
    _, biased = ask(engine, "a", max_new_tokens=8, logit_bias={7: 1e4})
    _, penalised = ask(
        engine, "a", max_new_tokens=8, logit_bias={7: 1e4}, frequency_penalty=1e3, stop=()
    )
    engine.run_until_idle()
    assert set(biased.ids) == {7} != set(plain.ids)
    assert penalised.ids == biased.ids  # 1e3 a time does not outweigh 1e4 within eight


def test_a_request_that_cannot_be_is_refused_at_once(engine: Engine) -> None:
    for request in (
        Request(ids=[]),
        Request(ids=[10**6]),
        Request(ids=[1], options=RowOptions(logit_bias={-1: 1.0})),
        Request(ids=[1], state=engine.lm.model.empty_state(2)),
    ):
        with pytest.raises(InputError):
            engine.submit(request, Heard())


def test_one_broken_row_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from griffin_lm.inference.engine import engine as module

    real = module.choose_for

    def choose(logits, options, *rest):
        if options.top_k == 3:
            raise InputError("broken")
        return real(logits, options, *rest)

    monkeypatch.setattr(module, "choose_for", choose)
    _, broken = ask(engine, "a", max_new_tokens=5, top_k=3)
    _, whole = ask(engine, PROMPTS[0], max_new_tokens=5)
    engine.run_until_idle()
    assert isinstance(broken.events[-1], Failed)
    assert whole.ids == engine.lm.generate(PROMPTS[0], max_new_tokens=5).tokens


def test_a_listener_that_breaks_ends_only_its_own_request(engine: Engine) -> None:
    def broken(event: Event) -> None:
        raise OSError("gone")

    request = Request(ids=[1, 5], options=RowOptions(max_new_tokens=10_000))
    engine.submit(request, broken)
    _, whole = ask(engine, PROMPTS[0], max_new_tokens=5)
    engine.run_until_idle()
    assert whole.ids == engine.lm.generate(PROMPTS[0], max_new_tokens=5).tokens


@pytest.mark.skipif(native.UNBUILT is not None, reason="without kernels no bits are promised")
def test_with_the_kernels_a_state_is_the_same_to_the_bit_in_any_company(lm: LanguageModel) -> None:
    def kept(others: int) -> State:
        engine = Engine(lm, slots=4, chunk=8)
        for prompt in PROMPTS[:others]:
            ask(engine, prompt, max_new_tokens=9, temperature=0.7)
        _, heard = ask(engine, PROMPTS[2], max_new_tokens=4, keep_state=True)
        engine.run_until_idle()
        assert heard.end.state is not None
        return heard.end.state

    alone, among = kept(0), kept(2)
    for one, other in zip(alone.layers, among.layers, strict=True):
        assert all(map(torch.equal, one, other))


def test_a_fault_of_the_engine_ends_its_requests_and_not_its_thread(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = engine._generate, []

    def fault() -> None:
        if not broken:
            broken.append(True)
            raise KeyError("a fault")
        real()

    monkeypatch.setattr(engine, "_generate", fault)
    request = Request(ids=[1, 5], options=RowOptions(max_new_tokens=2))
    with EngineThread(engine) as thread:
        with pytest.raises(KeyError):
            thread.serve(request)
        assert len(thread.serve(request).tokens) == 2
