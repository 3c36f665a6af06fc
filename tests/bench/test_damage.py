"""Damage itself: it reaches what it is for, and stays what it says."""

import io
import json
import pickletools
import zipfile
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch

from griffin_lm.bench.reliability import READERS, checksums, seeds
from griffin_lm.bench.reliability.damage import damage_bytes, varint
from griffin_lm.bench.reliability.damage_json import damage_json
from griffin_lm.bench.reliability.damage_protobuf import damage_protobuf, fields
from griffin_lm.bench.reliability.damage_zip import change_opcodes, damage_pickle, damage_zip
from griffin_lm.bench.reliability.reader import make_input, read_files
from griffin_lm.checkpoints import load_model


def test_damaged_json_is_nearly_always_json_and_never_the_same_for_long() -> None:
    good = json.dumps({"a": [1, 2, 3], "b": {"c": 1.5, "d": "x"}, "e": '{"f": 1}'}).encode()
    made = [damage_json(Random(seed), good) for seed in range(500)]
    assert sum(one != good for one in made) > 450
    readable = 0
    for one in made:
        try:
            json.loads(one)
            readable += 1
        except (ValueError, RecursionError):
            assert b"placeholder" not in one
    assert readable > 300, "most of it reaches what reads the values"
    twice = [one for one in made if one.count(b'"a"') > 1 and one.count(b'"a": [1, 2, 3]') == 1]
    assert twice and any(b"1e999" in one for one in made)
    assert any(one.count(b"[") > 4000 for one in made)
    assert any(b'\\"f\\": ' in one and b'\\"f\\": 1}' not in one for one in made), "json in a text"


def test_a_damaged_message_is_mostly_still_a_message() -> None:
    inner = b"\x0a\x02ab" + b"\x15\x00\x00\x80\x3f"
    good = b"".join(b"\x0a" + varint(len(inner)) + inner for _ in range(20)) + b"\x12\x02\x18\x01"
    found = fields(good)
    assert found is not None and [row.number for row in found] == [1] * 20 + [2]
    assert b"".join(row.write() for row in found) == good
    made = [damage_protobuf(Random(seed), good) for seed in range(300)]
    assert sum(fields(one) is not None for one in made) > 100
    assert sum(one != good for one in made) > 250


def test_a_damaged_zip_is_still_a_zip_and_its_pickle_mostly_a_pickle() -> None:
    out = io.BytesIO()
    torch.save({"x": torch.ones(3), "y": torch.zeros(2)}, out)
    good = out.getvalue()
    for seed in range(100):
        with zipfile.ZipFile(io.BytesIO(damage_zip(Random(seed), good))) as archive:
            assert archive.infolist() is not None
    readable = 0
    for seed in range(200):
        with zipfile.ZipFile(io.BytesIO(damage_pickle(Random(seed), good))) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".pkl"))
            data = archive.read(name)
        try:
            readable += len(list(pickletools.genops(data))) > 0
        except (ValueError, UnicodeDecodeError):
            continue
    assert readable > 150
    assert change_opcodes(Random(0), b"not a pickle") != b""


def test_bytes_are_damaged_at_both_ends_more_often() -> None:
    good = bytes(100_000)
    places = Counter[str]()
    for seed in range(500):
        made = damage_bytes(Random(seed), good)
        if len(made) == len(good) and made != good:
            at = next(i for i, byte in enumerate(made) if byte)
            places["front" if at < 512 else "back" if at >= len(good) - 512 else "middle"] += 1
    assert places["front"] > places["middle"] / 3 and places["back"] > 10


def test_repaired_checksums_are_those_that_we_write(tmp_path: Path) -> None:
    """Sums set to nothing come back as they were, and a changed weight then loads."""
    seeds.checkpoints("griffin", tmp_path)
    files = read_files(tmp_path / "whole")
    header, rest = checksums.split(files["model.safetensors"])
    plain = json.loads(header)
    ours = json.loads(plain["__metadata__"]["griffin"])
    blank = {**ours, "crc32": {}, "config": ""}
    plain["__metadata__"]["griffin"] = json.dumps(blank)
    changed = bytearray(rest)
    changed[-1] ^= 1
    for data, same in ((rest, True), (bytes(changed), False)):
        files["model.safetensors"] = checksums.join(json.dumps(plain).encode(), data)
        repaired = checksums.repair_checkpoint(files)
        again = json.loads(checksums.split(repaired["model.safetensors"])[0])
        assert (json.loads(again["__metadata__"]["griffin"]) == ours) is same
        (tmp_path / "whole" / "model.safetensors").write_bytes(repaired["model.safetensors"])
        load_model(tmp_path / "whole")


def test_repaired_nodes_of_a_database_are_read_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    seeds.orbax_folders(tmp_path)
    files = read_files(tmp_path / "ours")
    assert checksums.repair_orbax(files) == files, "they are right as they are"
    manifest = bytearray(files["checkpoint/manifest.ocdbt"])
    manifest[-1] ^= 1
    assert checksums.repair_orbax({**files, "checkpoint/manifest.ocdbt": bytes(manifest)}) == files


@pytest.mark.parametrize("name", READERS)
def test_every_reader_damages_every_file_that_it_names(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    if reader.package:
        pytest.importorskip(reader.package)
    reader.make(tmp_path)
    good = {folder.name: read_files(folder) for folder in tmp_path.iterdir()}
    touched: set[str] = set()
    inputs = [make_input(reader, good, 3, number) for number in range(400)]
    for one in inputs:
        before = good[one.variant]
        touched |= {file for file in before if one.files.get(file) != before[file]}
    for pattern, _ in reader.damage:
        assert any(Path(file).match(pattern) for file in touched), pattern
    assert any(len(one.files) < len(good[one.variant]) for one in inputs), "a file is missing"
    if reader.repair is not None:
        assert 0.3 < sum(one.repaired for one in inputs) / len(inputs) < 0.7
    assert max(len(data) for one in inputs for data in one.files.values()) <= 1 << 20
