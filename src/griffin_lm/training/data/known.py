"""Files that a user supplies, known by their SHA-256: data sets and vocabularies."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError
from .shards import Progress


class Known(NamedTuple):
    """A file: what it is, the name it usually has, its bytes (0: not known), its SHA-256."""

    what: str
    name: str
    size: int
    sha256: str


KNOWN = (
    Known(
        "enwik8, packed as published",
        "enwik8.zip",
        36_445_475,
        "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    ),
    Known(
        "enwik8, the first 10^8 bytes of Wikipedia's XML of 2006",
        "enwik8",
        100_000_000,
        "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
    ),
    Known(
        "WikiText-2, validation part, in pytorch/examples' form",
        "valid.txt",
        1_121_681,
        "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ),
    Known(
        "WikiText-2, test part, in pytorch/examples' form",
        "test.txt",
        1_256_449,
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
    Known(
        "tiny Shakespeare, of char-rnn",
        "tinyshakespeare.txt",
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    Known(
        "War and Peace, as in Karpathy, Johnson and Li 2015",
        "warpeace.txt",
        3_258_246,
        "fb66ba999dafe24017cdd59e04c56d385a9c8466993d374fd4c6f08b2142985e",
    ),
    Known(
        "GSM8K, training part",
        "gsm8k_train.jsonl",
        4_166_206,
        "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    ),
    Known(
        "GSM8K, test part",
        "gsm8k_test.jsonl",
        749_738,
        "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    ),
    Known(
        "Gemma's vocabulary, which is RecurrentGemma's",
        "tokenizer.model",
        0,
        "61a7b147390c64585d6c3543dd6fc636906c9af3865a5548f27f31aee1d4c8e2",
    ),
    Known(
        "Gemma 3's vocabulary",
        "gemma3_cleaned_262144_v2.spiece.model",
        0,
        "1299c11d7cf632ef3b4e11937501358ada021bbdf7c47638d13c0ee982f2e79c",
    ),
    Known(
        "Mistral's first vocabulary",
        "tokenizer.model.v1",
        493_443,
        "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055",
    ),
)


def identify(path: Path, progress: Progress | None = None) -> Known:
    """What a file is, by the hash of all its bytes.

    Raises:
        DataError: not readable, or none of the known files; its hash is in the message, and what
            the file of that name should be.

    """
    digest, done = hashlib.sha256(), 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                done += len(block)
                if progress is not None:
                    progress(done, size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    found = digest.hexdigest()
    for known in KNOWN:
        if known.sha256 == found:
            return known
    message = f"{path}: {done:,} bytes with SHA-256 {found}: no token file, and no file known here"
    for known in KNOWN:
        if known.name == path.name:
            bytes_ = f"{known.size:,} bytes and " if known.size else ""
            message += f"; {known.what}, has {bytes_}SHA-256 {known.sha256}"
    raise DataError(message + "; if it should be one of them, download it again")
