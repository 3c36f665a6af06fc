"""Texts for the studies: War and Peace, novels by authors held out; else the bundled book."""

import bz2
import gzip
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import InputError
from ..inference.resolution import BUNDLED
from ..models import Griffin
from ..shapes import JSON
from ..text import load_tokenizer
from .fit import Draw, batch_of

SYMBOLS = 128  # rows of the embedding of characters: War and Peace has 87
HELD_AUTHORS = 10  # every so-manieth author is held out
_CHUNK, _LOGITS = 512, 2**24


class Corpus(NamedTuple):
    """Ids: to train on, to choose by, to test on (documents); where they are from."""

    train: np.ndarray
    valid: Sequence[np.ndarray]
    test: Sequence[np.ndarray]
    source: str


@lru_cache(maxsize=1)
def characters(data: Path | None) -> Corpus:
    """War and Peace's bytes, ranked, cut 80/10/10 as in Karpathy et al. 2015; else the book's."""
    path = _find(data, "warpeace.txt")
    content = (path or BUNDLED["fledgling"] / "book.txt").read_bytes()
    symbols = sorted(set(content))
    if len(symbols) > SYMBOLS:
        raise InputError(f"{path} has {len(symbols)} byte values, more than {SYMBOLS}: not a text")
    rank = np.zeros(256, dtype=np.int64)
    rank[symbols] = np.arange(len(symbols))
    ids = rank[np.frombuffer(content, dtype=np.uint8)]
    first, second = 8 * len(ids) // 10, 9 * len(ids) // 10
    source = "War and Peace, 3,258,246 bytes" if path else "the bundled book alone"
    return Corpus(ids[:first], [ids[first:second]], [ids[second:]], source)


@lru_cache(maxsize=2)
def novels(data: Path | None, most: int, pieces: bool) -> Corpus:
    """Novels, of which every HELD_AUTHORS-th author's are held out: no author is on both sides.

    most: characters to train on, the first ones. pieces: ids of fledgling's vocabulary of 2,048
    pieces, else bytes. Of the held-out documents every other one is to choose by.
    """
    path = books_file(data)
    encode = _pieces if pieces else _bytes
    if path is None:
        text = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")
        cut = 8 * len(text) // 10
        half = (cut + len(text)) // 2
        parts = encode(text[:cut]), [encode(text[cut:half])], [encode(text[half:])]
        return Corpus(*parts, "the bundled book alone, its last tenths held out")
    books = list(_books(path))
    authors = sorted({author for author, _ in books})
    held = set(authors[HELD_AUTHORS // 2 :: HELD_AUTHORS])
    train, used = list[np.ndarray](), 0
    for author, text in books:
        if author not in held and used < most:
            train.append(encode(text[: most - used]))
            used += len(text)
    kept = [encode(text) for author, text in books if author in held]
    source = f"{len(books)} novels of {path.name}, {len(held)} of {len(authors)} authors held out"
    return Corpus(np.concatenate(train), kept[::2], kept[1::2] or kept, source)


def books_file(data: Path | None) -> Path | None:
    """The novels in a folder; None: there are none."""
    return _find(data, "eltec-eng.jsonl.bz2") or _any_books(data)


def _find(data: Path | None, name: str) -> Path | None:
    """A file of that name in the folder or one of its own folders."""
    if data is None:
        return None
    if not data.is_dir():
        raise InputError(f"--data {data}: there is no such folder")
    return next(iter(sorted([*data.glob(name), *data.glob(f"*/{name}")])), None)


def _any_books(data: Path | None) -> Path | None:
    found = (
        [path for ending in ("", ".bz2", ".gz") for path in data.glob(f"*.jsonl{ending}")]
        if (data)
        else []
    )
    return next(iter(sorted(found)), None)


def _books(path: Path) -> Iterator[tuple[str, str]]:
    """(author, text) of each; a book without an author is one of its own."""
    opened = {".bz2": bz2.open, ".gz": gzip.open}.get(path.suffix, open)
    with opened(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row: JSON = json.loads(line)
            yield str(row.get("author") or number), row["text"]


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)


def _pieces(text: str) -> np.ndarray:
    tokenizer = load_tokenizer(BUNDLED["fledgling"])
    return np.array(tokenizer.encode(text, bos=False), dtype=np.int64)


def crops(tokens: np.ndarray, rows: int, length: int) -> Draw:
    """Rows of `length` tokens from random places, each a document of its own."""
    if len(tokens) < length + 2:
        raise InputError(f"a text of {len(tokens)} tokens is too short for rows of {length}")

    def draw(random: np.random.Generator, step: int) -> object:
        begin = random.integers(len(tokens) - length - 1, size=rows)
        whole = tokens[begin[:, None] + np.arange(length + 1)]
        return batch_of(whole[:, :-1], whole[:, 1:])

    return draw  # pyright: ignore[reportReturnType]  # a Batch, as batch_of says


def segments(documents: Sequence[np.ndarray], length: int, most: int) -> np.ndarray:
    """(rows, length + 1): at most `most` pieces spread evenly over the documents."""
    found = [
        document[begin : begin + length + 1]
        for document in documents
        for begin in range(0, len(document) - length, length)
    ]
    if not found:
        raise InputError(f"no held-out document has {length + 1} tokens")
    chosen = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return np.stack([found[index] for index in chosen])


@torch.inference_mode()
def losses(model: Griffin, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """(rows, length) nats of every token but the first, read from an empty state on, carried."""
    tokens = torch.from_numpy(rows).to(device)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    state, found = model.empty_state(len(rows)), list[Tensor]()
    step = max(1, min(_CHUNK, _LOGITS // (len(rows) * model.config.vocab)))
    for begin in range(0, inputs.shape[1], step):
        part = slice(begin, begin + step)
        logits, state = model(inputs[:, part], state=state, donate=True)
        assert logits is not None
        each = cross_entropy(
            logits.float().flatten(0, 1), targets[:, part].flatten(), reduction="none"
        )
        found.append(each.view(len(rows), -1))
    return torch.cat(found, 1).cpu().numpy()


def by_power(each: np.ndarray) -> dict[str, float]:
    """Mean nats at the positions from 2^k up to 2^(k+1), by 2^k."""
    length = each.shape[1]
    return {
        str(2**k): round(float(each[:, 2**k - 1 : 2 ** (k + 1) - 1].mean()), 4)
        for k in range(length.bit_length())
        if 2 ** (k + 1) - 1 <= length
    }
