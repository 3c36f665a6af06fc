"""`griffin data prepare`: text files to a folder of token files with an index."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError, InputError, TokenizerError
from ...text.files import write_aside
from ...text.tokenizer import Tokenizer
from .prepared import INDEX
from .rows import encode_row
from .shards import SUFFIX, Progress, TokenFileWriter
from .sources import BadLines, find_sources, kind_of, read_pieces, read_rows

SHARD_TOKENS = 1 << 28


def prepare(
    source: Path,
    tokenizer: Tokenizer,
    out: Path,
    *,
    max_bad: int = 10,
    shard_tokens: int = SHARD_TOKENS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tokenises a file or a folder of files; every document begins with BOS where there is one.

    Documents are the rows of .jsonl files and whole .txt files, in the order of the files' names.
    `out` gets the token files, the tokenizer's files, and at last `index.json`: a folder without it
    is not complete, and preparing again replaces what is there.

    Args:
        source: a .txt or .jsonl file, also .gz or .bz2, or a folder of them.
        tokenizer: of the model that is to be trained.
        out: a new folder, or one that is empty or not complete.
        max_bad: malformed lines of .jsonl files that are left out before it stops.
        shard_tokens: a token file is closed at the first document that ends past so many.
        progress: told (bytes read, bytes in all) of the source files, as they lie on disk.

    Returns:
        What `index.json` holds: files with name, tokens, documents and SHA-256, sums, the
        tokenizer's fingerprint, malformed lines.

    Raises:
        DataError: nothing to read, an empty file, too many malformed lines, `out` is in use, or
            cannot be written.

    """
    if (out / INDEX).exists():
        raise DataError(f"{out}: holds prepared text already; choose another folder or remove it")
    sources = find_sources(source)
    for left in (*out.glob("*" + SUFFIX), *out.glob(f".*{SUFFIX}.*")):  # of a run that did not end
        left.unlink()
    writing = _Writing(tokenizer, out, shard_tokens)
    bad = BadLines(max_bad)
    sizes = [path.stat().st_size for path in sources]
    try:
        for place, path in enumerate(sources):
            before = sum(sizes[:place])

            def told(done: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + done, sum(sizes))

            documents = writing.documents
            if kind_of(path) == ".txt":
                _add_text(writing, tokenizer, read_pieces(path, told))
            else:
                for number, row in read_rows(path, bad, told):
                    try:
                        ids = encode_row(row, tokenizer).ids
                    except InputError as error:
                        bad.add(path, number, error)
                        continue
                    if len(ids) <= len(tokenizer.encode("")):
                        bad.add(path, number, "has no text")
                        continue
                    writing.add(ids)
                    writing.end()
            if writing.documents == documents:
                first = f": {bad.messages[0]}" if bad.messages else ""
                raise DataError(f"{path}: no document in it{first}")
        files = writing.close()
    finally:
        writing.discard()
    index = {
        "format": "griffin-lm tokens",
        "version": 1,
        "tokenizer": tokenizer.fingerprint,
        "tokens": sum(file["tokens"] for file in files),
        "documents": sum(file["documents"] for file in files),
        "sources": [path.name for path in sources],
        "source_bytes": sum(sizes),
        "malformed_lines": bad.count,
        "malformed": bad.messages,
        "files": files,
    }
    try:
        tokenizer.save(out)
        write_aside(out / INDEX, (json.dumps(index, indent=1) + "\n").encode())
    except TokenizerError as error:
        raise DataError(str(error)) from error
    return index


def _add_text(writing: "_Writing", tokenizer: Tokenizer, pieces: Iterator[str]) -> None:
    """One document of a text in pieces; none where it is empty."""
    encoder = tokenizer.encoder()
    empty = True
    for piece in pieces:
        writing.add(encoder.feed(piece))
        empty = False
    if not empty:
        writing.add(encoder.finish())
        writing.end()


class _Writing:
    """Token files one after the other."""

    def __init__(self, tokenizer: Tokenizer, out: Path, shard_tokens: int) -> None:
        self.tokenizer, self.out, self.shard_tokens = tokenizer, out, shard_tokens
        self.writer: TokenFileWriter | None = None
        self.files: list[dict[str, Any]] = []
        self.documents = 0

    def add(self, ids: list[int]) -> None:
        if self.writer is None:
            path = self.out / f"{len(self.files):05d}{SUFFIX}"
            vocab = self.tokenizer.vocab_size
            self.writer = TokenFileWriter(path, self.tokenizer.fingerprint, vocab)
        self.writer.extend(ids)

    def end(self) -> None:
        if self.writer is None:
            return
        before = self.writer.documents
        self.writer.end_document()
        self.documents += self.writer.documents - before
        if self.writer.tokens >= self.shard_tokens:
            self.close()

    def close(self) -> list[dict[str, Any]]:
        if self.writer is not None and self.writer.documents:
            path, header = self.writer.path, self.writer.commit()
            counts = {"tokens": header.tokens, "documents": header.documents}
            self.files.append({"name": path.name, **counts, "sha256": header.sha256})
            self.writer = None
        return self.files

    def discard(self) -> None:
        if self.writer is not None:
            self.writer.discard()
