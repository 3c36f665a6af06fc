"""Ways of reading the same tokens that must give the same logits, on these very weights.

All but fork and file run on the twin, whose window is short enough to be crossed (`Subject.twin`).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ...models import State
from .lines import Line, judged, left_out, within
from .subject import Subject, difference

CHUNKS = (1, 2, 3, 5, 8, 13)  # odd places to cut at, again and again
TAPS = 3  # earlier inputs that the conv sees
PADDING = 7  # places at least that a row of the batch skips
LATER = 5  # tokens that follow a padded call in a second one
GAP_EVERY = 4  # every so many tokens an invalid one
STEPS = 20  # single tokens, from 8 before the window's edge on
LAST = 24  # tokens whose logits `long_window` compares
HELD = 40  # tokens that the forked state has read


def chunks(subject: Subject) -> Iterator[Line]:
    """The row cut into pieces."""
    tokens, state, parts = subject.row(subject.tokens), None, list[Tensor]()
    begin = turn = 0
    while begin < tokens.shape[1]:
        end = begin + CHUNKS[turn % len(CHUNKS)]
        logits, state = subject.twin(tokens[:, begin:end], state=state, donate=state is not None)
        assert logits is not None
        parts.append(logits[0].float())
        begin, turn = end, turn + 1
    error = difference(torch.cat(parts), subject.whole)
    yield within(
        "cut into chunks = whole",
        error,
        subject.limit,
        f"{tokens.shape[1]} tokens in {turn} calls of {', '.join(map(str, CHUNKS))} tokens",
    )


def single_tokens(subject: Subject) -> Iterator[Line]:
    """One token a call across the window's edge, where the ring begins to overwrite."""
    tokens = subject.row(subject.tokens)
    begin = max(subject.reach - 8, 1)
    end = min(begin + STEPS, tokens.shape[1])
    _, state = subject.twin(tokens[:, :begin], logits=None)
    error = 0.0
    for at in range(begin, end):
        logits, state = subject.twin(tokens[:, at : at + 1], state=state, logits="last")
        assert logits is not None
        error = max(error, difference(logits[0].float(), subject.whole[at]))
    note = f"tokens {begin} to {end - 1}, a call each; the window holds {subject.reach} earlier"
    yield within("token by token = whole", error, subject.limit, note)


def rows_and_padding(subject: Subject) -> Iterator[Line]:
    """Four rows in one call: padded left, padded right, with gaps, another text; then one more."""
    mine, other, twin = subject.tokens, subject.others, subject.twin
    first = len(mine) - LATER
    gaps = [at + at // (GAP_EVERY - 1) for at in range(first)]
    width = max(first + PADDING, gaps[-1] + 1)
    rows = {  # name -> ids, where the first of them stand in the row, what the logits must be
        "left padding = none": (mine, range(width - first, width), subject.whole),
        "right padding = none": (mine, range(first), subject.whole),
        "gaps = none": (mine, gaps, subject.whole),
        "row of a batch = row alone": (other, range(first), subject.logits(other)),
    }
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    valid = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (ids, places, _) in enumerate(rows.values()):
        tokens[row, list(places)] = torch.tensor(ids[:first])
        valid[row, list(places)] = True
    later = torch.tensor([ids[first:] for ids, _, _ in rows.values()])
    device = subject.row([]).device
    padded, state = twin(tokens.to(device), valid=valid.to(device))
    more, _ = twin(later.to(device), state=state, donate=True)
    assert padded is not None and more is not None
    note = f"{first} tokens with {width - first} places to skip, then {LATER} in a second call"
    for row, (name, (_, places, wanted)) in enumerate(rows.items()):
        found = torch.cat([padded[row, list(places)], more[row]]).float()
        yield within(name, difference(found, wanted), subject.limit, note)


def packed_documents(subject: Subject) -> Iterator[Line]:
    """Two documents in one row: the second must see nothing of the first."""
    first = len(subject.tokens) // 3
    a, b = subject.tokens[:first], subject.others[: len(subject.tokens) - first]
    starts = torch.zeros(1, len(a) + len(b), dtype=torch.bool)
    starts[0, [0, first]] = True
    packed = subject.row([*a, *b])
    logits, _ = subject.twin(packed, starts=starts.to(packed.device))
    assert logits is not None
    found, alone = logits[0].float(), subject.logits(b)
    error = max(difference(found[:first], subject.whole[:first]), difference(found[first:], alone))
    note = f"documents of {len(a)} and {len(b)} tokens in one row"
    yield within("packed documents = separate", error, subject.limit, note)
    error = difference(found[first : first + TAPS], alone[:TAPS])
    note = "where the conv's taps would reach into the document before"
    yield within(f"first {TAPS} tokens of the next document", error, subject.limit, note)


def forked_state(subject: Subject) -> Iterator[Line]:
    """One state continued twice; the model as it is, with its whole window."""
    _, state = subject.model(subject.row(subject.tokens[:HELD]), logits=None)
    before = state.clone()
    once, once_after = _go_on(subject, state, subject.tokens[-3:])
    _go_on(subject, state, subject.others[-3:])
    again, again_after = _go_on(subject, state, subject.tokens[-3:])
    same = _same_bits(state, before)
    note = f"a state of {state.nbytes:,} bytes, forked and continued with two texts"
    yield judged("a fork leaves the state unchanged", same, _bits(same), "to the bit", note)
    same = torch.equal(once, again) and _same_bits(once_after, again_after)
    note = "the same fork continued again gives the same logits and state"
    yield judged("a fork can be repeated", same, _bits(same), "to the bit", note)


def saved_state(subject: Subject) -> Iterator[Line]:
    """A state written to a file and read again."""
    _, state = subject.model(subject.row(subject.others[:HELD]), logits=None)
    with tempfile.TemporaryDirectory(prefix="griffin-verify-") as folder:
        file = Path(folder) / "state"
        state.save(file)
        size = file.stat().st_size
        loaded = State.load(file, subject.lm)
    note = f"a file of {size:,} bytes, continued by 3 tokens"
    a, after_a = _go_on(subject, state, subject.tokens[-3:])
    b, after_b = _go_on(subject, loaded, subject.tokens[-3:])
    same = _same_bits(state, loaded)
    if [t.shape for t in _tensors(state)] == [t.shape for t in _tensors(loaded)]:
        same = same and torch.equal(a, b) and _same_bits(after_a, after_b)
        yield judged("saved and loaded = continued", same, _bits(same), "to the bit", note)
        return
    # a cache that grows is saved without its room in reserve, and sums in another order after it
    error = difference(a.float(), b.float()) if same else float("nan")
    note += "; the state has the same bits, the logits after it differ by rounding"
    yield within("saved and loaded = continued", error, subject.limit, note)


def long_window(subject: Subject) -> Iterator[Line]:
    """The model with its whole window, read past it in chunks and at once (`long` only)."""
    model, ids = subject.model, subject.long_tokens
    if subject.window == 0:
        yield left_out("read past the whole window", "the model has no attention window")
        return
    hidden, _ = model.hidden(subject.row(ids))
    whole = model.head(hidden[:, -LAST:])[0].float()
    _, state = model(subject.row(ids[: subject.window - 5]), logits=None)
    parts: list[Tensor] = []
    for begin in range(subject.window - 5, len(ids), 7):
        logits, state = model(subject.row(ids[begin : begin + 7]), state=state, donate=True)
        assert logits is not None
        parts.append(logits[0].float())
    found = torch.cat(parts)[-LAST:]
    note = f"{len(ids)} tokens; compared are the logits of the last {LAST}"
    error = difference(found, whole)
    yield within("read past the whole window", error, subject.limit, note)


def _go_on(subject: Subject, state: State, ids: list[int]) -> tuple[Tensor, State]:
    logits, after = subject.model(subject.row(ids), state=state)
    assert logits is not None
    return logits, after


def _same_bits(a: State, b: State) -> bool:
    """Whether two states hold the same bits; room that a growing cache has in reserve is none."""
    pairs = zip(_tensors(a.compact()), _tensors(b.compact()), strict=True)
    return all(torch.equal(_raw(x), _raw(y)) for x, y in pairs)


def _tensors(state: State) -> list[Tensor]:
    layers = [tensor for layer in state.layers for tensor in layer]
    return [*layers, state.read, state.position, state.due]


def _raw(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _bits(same: bool) -> str:
    return "the same bits" if same else "different bits"
