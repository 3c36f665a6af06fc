"""How likely continuations are after contexts: a context is read once, and forked for each of them.

The last token of a context gives the logits of every continuation's first token. A continuation of
one token, as a letter that answers a question, so costs no call of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..inference.reading import read_rows
from ..models import Griffin, State

LOGITS = 2**26  # numbers that a call's logits may hold
ROWS = 32  # contexts, or texts, that are read side by side
CHUNK = 1024
Progress = Callable[[int, int], None]


class Asked(NamedTuple):
    """Token ids of a context, BOS included, and of what may follow it."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Score(NamedTuple):
    """logprob: the sum over the continuation's tokens, in nats. greedy: each was the likeliest."""

    logprob: float
    greedy: bool


@torch.inference_mode()
def score_after_contexts(
    model: Griffin,
    asked: Sequence[Asked],
    rows: int = ROWS,
    progress: Progress = lambda done, whole: None,
) -> list[Score]:
    """A score for each, in their order. Contexts that are equal are read once, `rows` at a time.

    What all contexts begin with, such as the same examples, is read once for all. progress: told of
    continuations. Raises InputError for a context or a continuation without a token.
    """
    for place, one in enumerate(asked):
        if not one.context or not one.continuation:
            what = "context" if not one.context else "continuation"
            raise InputError(f"request {place} has an empty {what}; give it at least one token")
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, one in enumerate(asked):
        groups.setdefault(one.context, []).append(place)
    # the longest first: rows of like length stand together, and what is too long shows at once
    contexts = sorted(groups, key=len, reverse=True)
    shared, start = _read_beginning(model, contexts)
    scores: list[Score | None] = [None] * len(asked)
    done = 0
    for begin in range(0, len(contexts), rows):
        here = contexts[begin : begin + rows]
        logits, state = _after(model, [context[shared:] for context in here], start)
        owners = [row for row, context in enumerate(here) for _ in groups[context]]
        places = [place for context in here for place in groups[context]]
        found = score_continuations(
            model, logits, state, owners, [asked[place].continuation for place in places]
        )
        for place, score in zip(places, found, strict=True):
            scores[place] = score
        done += len(places)
        progress(done, len(asked))
    return [score for score in scores if score is not None]


@torch.inference_mode()
def score_continuations(
    model: Griffin,
    logits: Tensor,
    state: State,
    owners: Sequence[int],
    continuations: Sequence[Sequence[int]],
) -> list[Score]:
    """Scores of continuations, each after one row of a state, which is not changed.

    logits: (B, V) after the rows. owners: which row each continuation goes on from.
    """
    first = logits.float().log_softmax(-1)
    best = first.argmax(-1)
    totals = [float(first[row, c[0]]) for row, c in zip(owners, continuations, strict=True)]
    greedy = [int(best[row]) == c[0] for row, c in zip(owners, continuations, strict=True)]
    longer = sorted(
        (place for place, c in enumerate(continuations) if len(c) > 1),
        key=lambda place: -len(continuations[place]),
    )
    while longer:
        length = len(continuations[longer[0]]) - 1
        count = max(1, min(LOGITS // (length * logits.shape[1]), 8 * ROWS))
        some, longer = longer[:count], longer[count:]
        fork = state[[owners[place] for place in some]]
        found = _score_rows(model, fork, [continuations[place] for place in some])
        for place, (logprob, is_greedy) in zip(some, found, strict=True):
            totals[place] += logprob
            greedy[place] = greedy[place] and is_greedy
    return [Score(total, each) for total, each in zip(totals, greedy, strict=True)]


@torch.inference_mode()
def score_texts(
    model: Griffin,
    texts: Sequence[Sequence[int]],
    rows: int = ROWS,
    chunk: int = CHUNK,
    progress: Progress = lambda done, whole: None,
) -> list[float]:
    """The log-likelihood of all but the first token of each text, of any length, in nats.

    Read in chunks with the state carried on, so that it is that of one long call. progress: told
    of tokens.
    """
    totals = [0.0] * len(texts)
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    whole, done = sum(max(0, len(text) - 1) for text in texts), 0
    while order:
        some, order = order[:rows], order[rows:]
        width = max(1, min(chunk, LOGITS // (len(some) * model.config.vocab)))
        state = model.empty_state(len(some))
        for begin in range(0, len(texts[some[0]]) - 1, width):
            parts = [texts[place][begin : begin + width + 1] for place in some]
            found = _advance(model, state, parts)
            state = found.state
            for place, logprob in zip(some, found.logprobs, strict=True):
                totals[place] += logprob
            done += sum(max(0, len(part) - 1) for part in parts)
            progress(done, whole)
    return totals


class _Advanced(NamedTuple):
    logprobs: list[float]
    greedy: list[bool]
    state: State


def _score_rows(
    model: Griffin, state: State, rows: Sequence[Sequence[int]]
) -> list[tuple[float, bool]]:
    """Log-likelihood of all but the first token of each row, and whether all were likeliest."""
    found = _advance(model, state, rows)
    return list(zip(found.logprobs, found.greedy, strict=True))


def _advance(model: Griffin, state: State, rows: Sequence[Sequence[int]]) -> _Advanced:
    """Feeds all but the last token of each row; the state is used up."""
    device = model.embed.weight.device
    width = max(1, max(map(len, rows)) - 1)
    lengths = [max(0, len(row) - 1) for row in rows]
    padded = [[*row, *[0] * (width + 1 - len(row))] for row in rows]
    tokens = torch.tensor(padded, dtype=torch.int64, device=device)
    valid = torch.arange(width, device=device) < torch.tensor(lengths, device=device)[:, None]
    ragged = min(lengths) < width
    logits, state = model(tokens[:, :-1], valid=valid if ragged else None, state=state, donate=True)
    assert logits is not None
    logits = logits.float()
    wanted = tokens[:, 1:]
    each = logits.gather(-1, wanted[..., None])[..., 0] - logits.logsumexp(-1)
    right = (logits.argmax(-1) == wanted) | ~valid
    sums = torch.where(valid, each, 0.0).sum(-1, dtype=torch.float64)
    return _Advanced(sums.tolist(), right.all(-1).tolist(), state)


def _read_beginning(model: Griffin, contexts: Sequence[tuple[int, ...]]) -> tuple[int, State]:
    """How many tokens all contexts begin with, the last of each left out, and the state of them."""
    if len(contexts) < 2:
        return 0, model.empty_state(1)
    low, high = min(contexts), max(contexts)  # all others lie between these
    most = min(map(len, contexts)) - 1
    pairs = zip(low[:most], high[:most], strict=True)
    shared = next((at for at, (a, b) in enumerate(pairs) if a != b), most)
    return shared, read_rows(model, [low[:shared]], model.empty_state(1), donate=True)


def _after(
    model: Griffin, contexts: Sequence[tuple[int, ...]], start: State
) -> tuple[Tensor, State]:
    """(B, V) logits after contexts that go on from `start`, and the state of these rows."""
    state = start[[0] * len(contexts)]
    state = read_rows(model, [context[:-1] for context in contexts], state, donate=True)
    device = model.embed.weight.device
    last = torch.tensor([[context[-1]] for context in contexts], device=device)
    logits, state = model(last, state=state, logits="last", donate=True)
    assert isinstance(logits, Tensor)
    return logits, state
