"""Whether the model knows language: bits per byte on a passage, and on its words shuffled."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch.nn.functional import cross_entropy

from .lines import Line, judged, left_out, told
from .subject import Subject

CHUNK = 128  # tokens a call: 128 x 256k logits in fp32 are 131 MB
WORSE = 0.2  # bits per byte that shuffling the words must cost, at least


@dataclass(frozen=True)
class Known:
    """What was measured here: the weights' fingerprint, and bits per byte on the passage."""

    fingerprint: str
    bits_per_byte: float


# Only models that were measured here stand in this table (docs/verify.md says how).
KNOWN = {
    "fledgling": Known("ae1985fafef1f87c35f7b391dd6b2a33529a5beec553689c187e5b88f5e27ad8", 1.6828),
}
CLOSE = 0.01  # bits per byte: what bfloat16 changes, and more


def fingerprint(subject: Subject) -> Iterator[Line]:
    """The fingerprint, held against the known one of the bundled model."""
    found = subject.model.origin.model()
    known = None if subject.random else KNOWN.get(subject.name)
    if known is None:
        note = "of config and weights; the same in every format and dtype"
        yield told("fingerprint of the model", found, note)
    else:
        right, limit = found == known.fingerprint, f"{known.fingerprint[:16]} …"
        yield judged("fingerprint of the model", right, found, limit, "as it was measured")


def bits_per_byte(subject: Subject, progress: Callable[[int, int], None]) -> Iterator[Line]:
    """On the passage and on the same words shuffled, each from BOS on, the state carried."""
    names = ("bits per byte of the passage", "shuffled words are worse")
    if subject.random:
        yield from (left_out(name, "random weights know no language") for name in names)
        return
    if subject.lm.tokenizer.bos_id is None:
        yield from (left_out(name, "the vocabulary has no BOS to begin with") for name in names)
        return
    texts = subject.passage, subject.shuffled
    rows = [subject.lm.encode(text) for text in texts]
    size, total, done = len(subject.passage.encode()), sum(map(len, rows)), 0
    found: list[float] = []
    for ids in rows:
        nats = 0.0
        for part in _losses(subject, ids):
            nats += part
            done += min(CHUNK, total - done)
            progress(done, total)
        found.append(nats / math.log(2) / size)
    known = None if subject.random else KNOWN.get(subject.name)
    note = f"{size} bytes, {len(rows[0]) - 1} tokens of War and Peace"
    if known is None:
        yield told(names[0], f"{found[0]:.4f}", note + "; no range is claimed for this model")
    else:
        right = abs(found[0] - known.bits_per_byte) <= CLOSE
        limit = f"{known.bits_per_byte:.4f} ± {CLOSE}"
        yield judged(names[0], right, f"{found[0]:.4f}", limit, note)
    cost = found[1] - found[0]
    note = f"{found[1]:.4f} bits per byte on the same words in another order"
    yield judged(names[1], cost >= WORSE, f"+{cost:.4f}", f"at least +{WORSE}", note)


def _losses(subject: Subject, ids: list[int]) -> Iterator[float]:
    """Nats of all tokens but the first, chunk by chunk."""
    tokens, state = subject.row(ids), None
    for begin in range(0, len(ids) - 1, CHUNK):
        inputs = tokens[:, begin : min(begin + CHUNK, len(ids) - 1)]
        logits, state = subject.model(inputs, state=state, donate=state is not None)
        assert logits is not None
        targets = tokens[0, begin + 1 : begin + 1 + inputs.shape[1]]
        yield cross_entropy(logits[0].float(), targets, reduction="sum").item()
