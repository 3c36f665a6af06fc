"""The split by book, and the token cache."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece

from ...errors import DataError
from ...evals.books import Book, read_books

Tokens16 = np.ndarray  # (N,) uint16: token ids; vocabularies here stay below 65 536


class Corpus(NamedTuple):
    """Tokens of the training books, each book ended by eos, and of the held-out ones, by id."""

    train: Tokens16
    held_out: dict[str, Tokens16]
    held_out_bytes: dict[str, int]


def split(folder: Path, held_out: tuple[str, ...]) -> tuple[list[Book], list[Book]]:
    """(training books, held-out books). An id that is not there is refused."""
    books = list(read_books(folder))
    kept = [book for book in books if book.id in held_out]
    if missing := set(held_out) - {book.id for book in kept}:
        raise DataError(f"{folder} has no book {sorted(missing)[0]!r} to hold out")
    train = [book for book in books if book.id not in held_out]
    if not train:
        raise DataError(f"{folder}: every book is held out; nothing to train on")
    return train, kept


def token_cache(
    folder: Path,
    cache: Path,
    held_out: tuple[str, ...],
    vocabulary: sentencepiece.SentencePieceProcessor,
) -> Corpus:
    """The corpus in tokens, made once and kept in `cache` as uint16 .npy beside an index."""
    index_file = cache / "index.json"
    if not index_file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        train, kept = split(folder, held_out)
        parts = [_encode(book, vocabulary) for book in train]
        write_array(cache / "train.npy", np.concatenate(parts))
        for book in kept:
            write_array(cache / f"held_out_{book.id}.npy", _encode(book, vocabulary))
        index = {
            "train": {book.id: len(book.text.encode()) for book in train},
            "held_out": {book.id: len(book.text.encode()) for book in kept},
        }
        temporary = index_file.with_suffix(".part")
        temporary.write_text(json.dumps(index, indent=1))
        os.replace(temporary, index_file)  # last: its presence says that all is there
    index = json.loads(index_file.read_text())
    if set(index["held_out"]) != set(held_out):
        raise DataError(
            f"{cache} was made with other held-out books ({sorted(index['held_out'])}); "
            "remove that folder or choose another --out"
        )
    arrays = {
        name: np.load(cache / f"held_out_{name}.npy", mmap_mode="r") for name in index["held_out"]
    }
    return Corpus(np.load(cache / "train.npy"), arrays, index["held_out"])


def write_array(path: Path, array: np.ndarray) -> None:
    """Saves an array so that `path` is never half written."""
    temporary = path.with_suffix(".part.npy")
    np.save(temporary, array)
    os.replace(temporary, path)


def _encode(book: Book, vocabulary: sentencepiece.SentencePieceProcessor) -> Tokens16:
    ids = vocabulary.encode(book.text)
    return np.array([*ids, vocabulary.eos_id()], dtype=np.uint16)
