"""What fuzzing found in the reader of state files: files whose checksums are right."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import StateError

VOCAB = 96


def rewrite(path: Path, tensors: dict[str, bytes], names: dict[str, str] | None = None) -> None:
    """Other bytes for some tensors, or other names, with the checksums that belong to them."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    ours = json.loads(header["__metadata__"]["griffin"])
    body = bytearray(data[8 + length :])
    for name, raw in tensors.items():
        begin, end = header[name]["data_offsets"]
        assert end - begin == len(raw)
        body[begin:end] = raw
        ours["crc32"][name] = zlib.crc32(raw)
    for old, new in (names or {}).items():
        header[new] = header.pop(old)
        ours["crc32"][new] = ours["crc32"].pop(old)
    header["__metadata__"]["griffin"] = json.dumps(ours)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.fixture
def saved(tiny_griffin: griffin.Griffin, tmp_path: Path) -> Path:
    """The state of one row after four tokens, with a fifth pending."""
    _, state = tiny_griffin(torch.tensor([[1, 2, 3, 4]]), logits=None)
    state.with_pending([5]).save(tmp_path / "s.state")
    return tmp_path / "s.state"


def test_the_file_loads_when_nothing_is_changed(tiny_griffin: griffin.Griffin, saved: Path) -> None:
    rewrite(saved, {"read": struct.pack("<q", 4), "pending": struct.pack("<q", 5)})
    assert griffin.State.load(saved, tiny_griffin).tokens.tolist() == [5]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("pending", struct.pack("<q", VOCAB)),
        ("pending", struct.pack("<q", -2)),
        ("read", struct.pack("<q", -5)),
        ("read", struct.pack("<q", 2**63 - 1)),
        ("position", struct.pack("<q", -1)),
        ("position", struct.pack("<q", 2**62)),
        ("due", b"\x02"),
    ],
)
def test_counts_and_ids_that_no_call_leaves_behind_are_refused(
    name: str, raw: bytes, tiny_griffin: griffin.Griffin, saved: Path
) -> None:
    rewrite(saved, {name: raw})
    with pytest.raises(StateError, match=r"s\.state: its counts of tokens"):
        griffin.State.load(saved, tiny_griffin)


def test_an_endless_name_of_a_tensor_is_cut_in_the_message(
    tiny_griffin: griffin.Griffin, saved: Path
) -> None:
    rewrite(saved, {}, {"layers.0.h": "x" * 10_000})
    with pytest.raises(StateError, match="unknown tensor 'xxx") as caught:
        griffin.State.load(saved, tiny_griffin)
    assert len(str(caught.value)) < 1000


def test_what_safetensors_repeats_of_a_header_is_cut_in_the_message(
    tiny_griffin: griffin.Griffin, saved: Path
) -> None:
    text = json.dumps({"read": "x" * 10_000}).encode()
    saved.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(StateError, match="not a whole state file") as caught:
        griffin.State.load(saved, tiny_griffin)
    assert len(str(caught.value)) < 1000
