"""Token files: what is written comes back, and whatever is damaged is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from griffin_lm.errors import DataError
from griffin_lm.training.data.shards import HEADER_BYTES, TokenFile, TokenFileWriter

FINGERPRINT = "ab" * 32
DOCUMENTS = [[1, 5, 6], [1, 7], [1, 300, 2, 9]]


def write(path: Path, documents: list[list[int]] = DOCUMENTS, vocab: int = 512) -> Path:
    with TokenFileWriter(path, FINGERPRINT, vocab) as writer:
        for document in documents:
            writer.extend(document)
            writer.end_document()
        writer.commit()
    return path


@pytest.mark.parametrize(("vocab", "item"), [(65536, 2), (65537, 4)])
def test_documents_come_back_as_they_were_written(tmp_path: Path, vocab: int, item: int) -> None:
    documents = [*DOCUMENTS, [vocab - 1]]
    file = TokenFile(write(tmp_path / "a.tokens", documents, vocab))
    assert [file.document(place).tolist() for place in range(len(file))] == documents
    assert file.header.item == item and file.header.largest == vocab - 1
    assert file.header.fingerprint == FINGERPRINT
    assert isinstance(file.ids, np.memmap)
    file.verify()


def test_the_same_documents_make_the_same_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.tokens"), write(tmp_path / "b.tokens")
    assert one.read_bytes() == other.read_bytes()


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tokens").read_bytes()
    damaged = tmp_path / "damaged.tokens"
    for place in range(len(whole)):
        for bit in (1, 128):
            damaged.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(DataError, match=r"damaged\.tokens"):
                TokenFile(damaged).verify()


def test_a_file_of_any_other_length_does_not_open(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tokens").read_bytes()
    damaged = tmp_path / "damaged.tokens"
    for length in range(len(whole)):
        damaged.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"damaged\.tokens"):
            TokenFile(damaged)
    damaged.write_bytes(whole + b"\0")
    with pytest.raises(DataError, match="where its header makes it"):
        TokenFile(damaged)


def test_a_huge_claim_is_refused_before_it_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tokens")
    data = bytearray(path.read_bytes())
    data[16:24] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(DataError, match="which cannot be"):
        TokenFile(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"Once upon a time", "not a token file"),
        (b"griftok\n", "ends inside its header"),
        (b"griftok\n\x02" + bytes(HEADER_BYTES), "version 2"),
    ],
)
def test_another_kind_of_file_is_named_with_the_reason(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    path = tmp_path / "x.tokens"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"x\.tokens.*{reason}"):
        TokenFile(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.tokens.*cannot be read"):
        TokenFile(tmp_path / "x.tokens")


def test_a_file_that_was_not_committed_leaves_nothing(tmp_path: Path) -> None:
    with TokenFileWriter(tmp_path / "a.tokens", FINGERPRINT, 512) as writer:
        writer.extend([1, 2, 3])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.tokens")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"a\.tokens.*No space left"):
        write(path, [[1, 2]])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
