"""Loss on whole texts of any length: read once from the beginning, the state carried all the way.

Memory stays the same: the text is tokenised as it comes, and only sums are kept.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..errors import DataError
from ..inference import LanguageModel
from ..inference.text_source import TextSource
from ..models import State
from ..text.utf8 import Utf8Reader
from .books import read_books
from .perplexity import TextLoss, token_bytes

CHUNK = 1024
BOOKS = (".jsonl", ".jsonl.bz2", ".jsonl.gz")
_LOGITS = 2**25  # numbers in a call's logits
_POWERS = 64  # positions below 2^64
Progress = Callable[[int, int], None]


def documents_of(
    path: Path, ids: tuple[str, ...] = (), progress: Progress = lambda done, whole: None
) -> Iterator[Iterator[str]]:
    """The documents of a source, each in pieces: a text file, "-" for standard input, or books.

    ids: only these books. progress: (bytes read, bytes in all, as far as known), of a text. Raises
    DataError where a book is missing, InputError for what is not there or no UTF-8.
    """
    if not path.name.endswith(BOOKS):
        yield _pieces(path, progress)
        return
    if not path.exists():
        raise DataError(f"no such text: {path}")
    missing = set(ids)
    for book in read_books(path):
        if not ids or book.id in ids:
            missing.discard(book.id)
            yield iter([book.text])
    if missing:
        raise DataError(f"{path} has no book {min(missing)!r}")


def _pieces(path: Path, progress: Progress) -> Iterator[str]:
    source = TextSource(sys.stdin.buffer if str(path) == "-" else path)
    reader = Utf8Reader(name=source.name)
    try:
        while (data := source.read()) != b"":
            if data is not None:  # a stream may pause
                text = reader.feed(data)
                reader.take(len(text))
                yield text
                progress(source.seen, source.size or source.seen)
        yield reader.feed(b"", final=True)
    finally:
        source.close()


@dataclass
class _Sums:
    """Nats, and how many tokens, in all and by the power of two that a position begins with."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    nats: float = 0.0
    by_power: np.ndarray = field(default_factory=lambda: np.zeros((2, _POWERS)))

    def add(self, nats: np.ndarray, begin: int) -> None:
        """Losses of tokens at positions from `begin` on. Position 0 is part of the sum alone."""
        self.tokens += len(nats)
        self.nats += float(nats.sum())
        places = np.arange(begin, begin + len(nats))
        nats, places = nats[places > 0], places[places > 0]
        powers = np.frexp(places.astype(np.float64))[1] - 1  # exact below 2^53
        self.by_power[0] += np.bincount(powers, weights=nats, minlength=_POWERS)
        self.by_power[1] += np.bincount(powers, minlength=_POWERS)


def long_text_loss(
    lm: LanguageModel,
    documents: Iterable[Iterable[str]],
    limit: int | None = None,
    chunk: int = CHUNK,
) -> tuple[TextLoss, State]:
    """The loss over whole documents, each from BOS on, and the state after the last of them.

    documents: each in pieces of any size. limit: tokens of each that are read; None: all. Raises
    DataError for a vocabulary without BOS, and where there is no text.
    """
    if lm.tokenizer.bos_id is None:
        raise DataError("this vocabulary has no BOS to begin a text with")
    chunk = max(1, min(chunk, _LOGITS // lm.config.vocab))
    sums, state, sizes = _Sums(), lm.model.empty_state(1), token_bytes(lm.tokenizer)
    for pieces in documents:
        state = _read(lm, pieces, limit, chunk, sizes, sums)
        sums.documents += 1
    if not sums.tokens:
        raise DataError("the text is empty")
    powers = np.flatnonzero(sums.by_power[1])
    means = {2 ** int(k): float(sums.by_power[0, k] / sums.by_power[1, k]) for k in powers}
    loss = TextLoss(
        tokens=sums.tokens,
        bytes=sums.bytes,
        nats=sums.nats,
        by_position=means,
        documents=sums.documents,
    )
    return loss, state


def _read(
    lm: LanguageModel,
    pieces: Iterable[str],
    limit: int | None,
    chunk: int,
    sizes: np.ndarray,
    sums: _Sums,
) -> State:
    """One document: its losses into the sums; the state after it. sizes: bytes of every id."""
    encoder, state = lm.tokenizer.encoder(bos=True), lm.model.empty_state(1)
    waiting: list[int] = []
    at = given = read = 0
    left = limit
    for piece in chain(pieces, [None]):  # None: the end
        if piece is None:
            waiting += encoder.finish()
        else:
            waiting += encoder.feed(piece)
            given += len(piece.encode())
        while len(waiting) > (1 if piece is None else chunk) and left != 0:
            part = waiting[: min(chunk, chunk if left is None else left) + 1]
            state = _feed(lm, part, at, state, sums)
            waiting, at = waiting[len(part) - 1 :], at + len(part) - 1
            read += int(sizes[part[1:]].sum())
            left = None if left is None else left - (len(part) - 1)
        if left == 0 and len(waiting) > 1:  # enough of it
            sums.bytes += read
            return state
    sums.bytes += given  # exactly, whatever spaces and characters the vocabulary made of it
    return state


def _feed(lm: LanguageModel, ids: list[int], at: int, state: State, sums: _Sums) -> State:
    """All but the first of the ids are predicted, from position `at` on; the state after them."""
    tokens = torch.tensor([ids], device=lm.model.embed.weight.device)
    with torch.inference_mode():
        logits, state = lm.model(tokens[:, :-1], state=state, donate=True)
        assert logits is not None
        nats = cross_entropy(logits[0].float(), tokens[0, 1:], reduction="none")
    sums.add(nats.double().cpu().numpy(), at)
    return state
