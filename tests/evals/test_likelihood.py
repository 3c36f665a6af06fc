"""Scores of continuations: what one plain call each says, with contexts read once."""

import random
from typing import Any

import pytest
import torch

from griffin_lm.errors import InputError
from griffin_lm.evals.likelihood import Asked, Score, score_after_contexts, score_texts
from griffin_lm.models import Griffin, build

KINDS = ("tiny-griffin", "tiny-llama", "tiny-mamba")


def model_of(name: str) -> Griffin:
    return build(name, seed=1, dtype=torch.float64)


def requests(vocab: int, beginning: int = 0) -> list[Asked]:
    """Questions of different lengths with two to four answers each, out of order."""
    draw = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocab) for _ in range(count))

    first = ids(beginning)
    found = []
    for length in (1, 3, 20):
        context = first + ids(length)
        found += [Asked(context, ids(draw.randint(1, 6))) for _ in range(draw.randint(2, 4))]
    found.append(Asked(first + ids(7), ids(12)))
    draw.shuffle(found)
    return found


@torch.no_grad()
def by_one_call(model: Griffin, asked: Asked) -> Score:
    """The definition."""
    ids = torch.tensor([[*asked.context, *asked.continuation]])
    logits, _ = model(ids[:, :-1])
    assert logits is not None
    tail = logits[0, len(asked.context) - 1 :].log_softmax(-1)
    wanted = torch.tensor(asked.continuation)
    each = tail.gather(-1, wanted[:, None])[:, 0]
    return Score(float(each.sum()), bool((tail.argmax(-1) == wanted).all()))


def same(found: list[Score], wanted: list[Score]) -> bool:
    return all(
        one.logprob == pytest.approx(other.logprob, rel=1e-5) and one.greedy == other.greedy
        for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize(
    ("kind", "beginning"), [("tiny-griffin", 0), *((kind, 30) for kind in KINDS)]
)
def test_scores_are_those_of_one_plain_call_each(kind: str, beginning: int):
    model = model_of(kind)
    asked = requests(model.config.vocab, beginning)
    wanted = [by_one_call(model, one) for one in asked]
    for rows in (2, 32):
        assert same(score_after_contexts(model, asked, rows), wanted)


def test_what_the_model_would_say_itself_is_called_greedy():
    model = model_of("tiny-griffin")
    context = (5, 9, 2)
    logits, state = model(torch.tensor([context]), logits="last")
    said = [int(logits.argmax())]
    for _ in range(3):
        logits, state = model(torch.tensor([said[-1:]]), state=state, logits="last")
        said.append(int(logits.argmax()))
    other = [*said[:3], (said[3] + 1) % model.config.vocab]
    asked = [Asked(context, tuple(said)), Asked(context, tuple(other)), Asked(context, (said[0],))]
    assert [score.greedy for score in score_after_contexts(model, asked)] == [True, False, True]


def test_a_context_is_read_once_and_one_token_answers_cost_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    model, read = model_of("tiny-griffin"), [0]
    plain = model.forward

    def counted(tokens: Any, *arguments: Any, valid: Any = None, **options: Any) -> Any:
        read[0] += tokens.numel() if valid is None else int(valid.sum())
        return plain(tokens, *arguments, valid=valid, **options)

    monkeypatch.setattr(model, "forward", counted)
    common, ends = tuple(range(50)), [(1, 2, 3), (4, 5, 6, 7)]
    asked = [Asked((*common, *end), (answer,)) for end in ends for answer in range(4)]
    score_after_contexts(model, asked)
    assert read[0] == 50 + 3 + 4
    read[0] = 0
    score_after_contexts(model, [Asked((*common, 1), (2, 3)), Asked((*common, 1), (4, 5, 6))])
    assert read[0] == 51 + 1 + 2


@pytest.mark.parametrize("kind", KINDS)
def test_texts_read_in_chunks_are_texts_read_at_once(kind: str):
    model = model_of(kind)
    draw = random.Random(3)
    lengths = (1, 2, 57, 130, 131)
    texts = [[draw.randrange(model.config.vocab) for _ in range(n)] for n in lengths]
    told: list[tuple[int, int]] = []
    wanted = [0.0, *(by_one_call(model, Asked((t[0],), tuple(t[1:]))).logprob for t in texts[1:])]
    for rows, chunk in ((2, 1024), (5, 16)):
        found = score_texts(model, texts, rows, chunk, lambda *at: told.append(at))
        assert found == pytest.approx(wanted, rel=1e-5)
        assert told[-1] == (316, 316)


def test_a_request_without_a_token_is_refused_by_its_place():
    model = model_of("tiny-griffin")
    for asked, what in ((Asked((), (1,)), "context"), (Asked((1,), ()), "continuation")):
        with pytest.raises(InputError, match=f"request 1 has an empty {what}"):
            score_after_contexts(model, [Asked((1,), (1,)), asked])
    assert score_after_contexts(model, []) == [] and score_texts(model, []) == []
