"""Orbax folders: ours round-trip and are what Orbax asks for; damage of every kind is refused."""

import json
import math
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import detect, load_model, open_source, read_config, save_model
from griffin_lm.checkpoints.deepmind import orbax_writing
from griffin_lm.checkpoints.deepmind.ocdbt import read_ocdbt
from griffin_lm.checkpoints.deepmind.orbax import OrbaxFolder
from griffin_lm.checkpoints.deepmind.zstd import decoded_bounds
from griffin_lm.checkpoints.source import Outgoing
from griffin_lm.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    GriffinError,
    MissingExtra,
)
from tests.checkpoints.helpers import (
    TINY,
    assert_same_tensors,
    edit_json,
    random_model,
    tensors,
)
from tests.checkpoints.test_fuzz import damage

ts = pytest.importorskip("tensorstore")
FORM = "deepmind-flax"
DATA = Path(__file__).parents[1] / "golden" / "data"
KNOWN: dict[str, Any] = {"window": 8, "logit_cap": 30.0, "scale_embeddings": True}
NAME = "blocks.0.mlp_block.ffw_up.w"
Make = Callable[[str], Path]


@pytest.fixture
def theirs(tmp_path: Path) -> Make:
    """A folder that Orbax wrote, fresh: by its layout."""

    def extract(layout: str, release: str = "0.12.8") -> Path:
        with zipfile.ZipFile(DATA / f"orbax-{release}-{layout}-float32.zip") as archive:
            archive.extractall(tmp_path / layout)
        return tmp_path / layout / "2b-it"

    return extract


# ---- what is saved comes back


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_saved_model_loads_to_the_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    model = random_model().to(dtype)
    save_model(model, tmp_path / "m", FORM)
    loaded = load_model(tmp_path / "m")
    assert detect(tmp_path / "m") == FORM
    assert loaded.config == model.config == read_config(tmp_path / "m")
    assert_same_tensors(tensors(loaded), tensors(model))
    assert all(p.requires_grad and p.is_contiguous() for p in loaded.parameters())
    assert loaded.origin.model() == model.origin.model()
    inner = load_model(tmp_path / "m" / "checkpoint", config=TINY)
    assert_same_tensors(tensors(inner), tensors(model))


def test_saving_over_one_replaces_it_whole(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    (tmp_path / "m" / "notes.txt").write_text("mine")
    save_model(random_model(seed=5), tmp_path / "m", FORM)
    assert_same_tensors(tensors(load_model(tmp_path / "m")), tensors(random_model(seed=5)))
    names = sorted(path.name for path in (tmp_path / "m").iterdir())
    assert names == ["README.md", "checkpoint", "config.json", "notes.txt"]
    save_model(random_model(), tmp_path / "m", "griffin")
    assert not (tmp_path / "m" / "checkpoint").exists()
    assert_same_tensors(tensors(load_model(tmp_path / "m")), tensors(random_model()))


def test_a_folder_called_checkpoint_is_a_folder(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "checkpoint", FORM)
    assert (tmp_path / "checkpoint" / "checkpoint" / "manifest.ocdbt").is_file()
    assert_same_tensors(tensors(load_model(tmp_path / "checkpoint")), tensors(random_model()))


@pytest.mark.parametrize("shape", [(7, 5), (1, 7, 5), (3, 7, 5), (2, 1, 1, 9), (11,), (1,), (3, 1)])
@pytest.mark.parametrize("most", [1, 40, 64, 10**6])
def test_chunks_of_any_size_hold_the_array(
    shape: tuple[int, ...], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read back by tensorstore's own zarr driver, and by ours."""
    monkeypatch.setattr(orbax_writing, "_LEAST", most)
    monkeypatch.setattr(orbax_writing, "_MOST", most)
    wanted = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    outgoing = Outgoing("a.b", shape, torch.float32, lambda: wanted)
    orbax_writing.write_orbax(tmp_path / "o", [outgoing])
    base = {"driver": "ocdbt", "base": f"file://{tmp_path}/o/", "path": "a.b/"}
    store = ts.open({"driver": "zarr", "kvstore": base}, open=True).result()
    assert torch.equal(torch.from_numpy(store.read().result()), wanted)
    source = OrbaxFolder(tmp_path / "o")
    assert torch.equal(source.get("a.b"), wanted)
    chunks = len(source._arrays["a.b"].chunks)
    assert chunks == 1 or most < wanted.nbytes


def test_the_tree_is_described_for_orbax_of_then_and_now(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    described = json.loads((tmp_path / "m" / "checkpoint" / "_METADATA").read_text())
    row = described["tree_metadata"]["('blocks.0', 'mlp_block', 'ffw_up', 'w')"]
    assert [key["key"] for key in row["key_metadata"]] == ["blocks.0", "mlp_block", "ffw_up", "w"]
    assert len(described["tree_metadata"]) == len(open_source(tmp_path / "m").shapes)
    packed = (tmp_path / "m" / "checkpoint" / "checkpoint").read_bytes()
    assert packed.startswith(b"\xde") and b"PLACEHOLDER://blocks.0.mlp_block.ffw_up.w" in packed


def test_without_tensorstore_the_extra_is_named(
    theirs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [theirs("ocdbt"), theirs("zarr")]
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    for folder in folders:
        with pytest.raises(MissingExtra, match=r"pip install 'griffin-lm\[deepmind\]'"):
            load_model(folder, config=KNOWN)
    with pytest.raises(MissingExtra, match="deepmind"):
        save_model(random_model(), tmp_path / "m", FORM)
    assert not (tmp_path / "m").exists()


def test_a_disk_that_fills_leaves_nothing(tmp_path: Path) -> None:
    """A process of its own, whose files may not grow beyond 2 kB."""
    script = (
        "import resource, sys, griffin_lm as griffin\n"
        "from griffin_lm.checkpoints import save_model\n"
        "model = griffin.build('fledgling')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: save_model(model, sys.argv[1], 'deepmind-flax')\n"
        "except griffin.GriffinError as error: print(type(error).__name__)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "m")], capture_output=True, text=True
    )
    assert run.stdout.strip() == "CheckpointError", run.stderr
    assert list(tmp_path.iterdir()) == []


# ---- where it is found


def test_two_checkpoints_in_a_folder_are_listed(theirs: Make, tmp_path: Path) -> None:
    folder = theirs("zarr")
    shutil.copytree(folder, folder.parent / "2b")
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints.*2b, .*2b-it"):
        load_model(folder.parent, config=KNOWN)


def test_the_tokenizer_is_found_beside_and_around(theirs: Make, tmp_path: Path) -> None:
    bundled = griffin.load("fledgling").tokenizer
    griffin.save(griffin.load("fledgling", dtype="float32"), tmp_path / "m", FORM)
    assert griffin.load(tmp_path / "m").tokenizer.fingerprint == bundled.fingerprint
    # as in the published archives: the folder of weights, and the tokenizer beside it
    (tmp_path / "m" / "config.json").unlink()
    for path in (tmp_path / "m", tmp_path / "m" / "checkpoint"):
        found = griffin.load(path, dtype="float32")
        assert found.tokenizer.fingerprint == bundled.fingerprint
        assert found.config == griffin.PRESETS["fledgling"]


# ---- damage


def refused(folder: Path, kind: type[GriffinError], *words: str) -> None:
    with pytest.raises(GriffinError) as caught:
        load_model(folder, config=KNOWN)
    assert type(caught.value) is kind, repr(caught.value)
    for word in (str(folder), *words):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 3000


Edit = Callable[[dict[str, Any]], Any]
WRONG: dict[str, tuple[Edit, type[GriffinError], str]] = {
    "another shape": (lambda m: m.update(shape=[2, 24, 41]), CheckpointCorrupt, "chunks"),
    "a larger chunk": (lambda m: m.update(chunks=[2, 24, 80]), CheckpointCorrupt, "chunks of"),
    "an absurd shape": (
        lambda m: m.update(shape=[2**39] * 3, chunks=[2**39] * 3), CheckpointCorrupt, "damaged"
    ),
    "an endless shape": (lambda m: m.update(shape=[1] * 5000), CheckpointCorrupt, "described"),
    "a negative shape": (lambda m: m.update(shape=[-2, 24, 40]), CheckpointCorrupt, "described"),
    "a shape of 0": (lambda m: m.update(shape=[0, 24, 40]), CheckpointCorrupt, "chunks of"),
    "chunks of 0": (lambda m: m.update(chunks=[0, 24, 40]), CheckpointCorrupt, "chunks of"),
    "a shape of text": (lambda m: m.update(shape="2"), CheckpointCorrupt, "described"),
    "smaller chunks": (lambda m: m.update(chunks=[1, 24, 40]), CheckpointCorrupt, "2 chunks, and"),
    "no chunks": (lambda m: m.pop("chunks"), CheckpointCorrupt, "described"),
    "integers": (lambda m: m.update(dtype="<i4"), CheckpointError, "dtype '<i4'"),
    "the other byte order": (lambda m: m.update(dtype=">f4"), CheckpointError, "dtype '>f4'"),
    "a wider dtype": (lambda m: m.update(dtype="<f8"), CheckpointCorrupt, "byte"),
    "no dtype": (lambda m: m.pop("dtype"), CheckpointError, "dtype None"),
    "not compressed": (lambda m: m.update(compressor=None), CheckpointCorrupt, "7680 bytes"),
    "blosc": (lambda m: m.update(compressor={"id": "blosc"}), CheckpointError, "blosc"),
    "gzip": (lambda m: m.update(compressor={"id": "gzip"}), CheckpointCorrupt, "ffw_up"),
    "a compressor of text": (lambda m: m.update(compressor="x"), CheckpointError, "'x'"),
    "another order": (lambda m: m.update(order="F"), CheckpointError, "order 'F'"),
    "filters": (lambda m: m.update(filters=[{"id": "delta"}]), CheckpointError, "filters"),
    "a later format": (lambda m: m.update(zarr_format=3), CheckpointError, "zarr_format 3"),
    "a transposed shape": (
        lambda m: m.update(shape=[2, 40, 24], chunks=[2, 40, 24]), CheckpointMismatch, "ffw_up.w"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_an_array_described_wrongly_is_refused(what: str, theirs: Make) -> None:
    folder = theirs("zarr")
    change, kind, word = WRONG[what]
    edit_json(folder / NAME / ".zarray", change)
    refused(folder, kind, word)


@pytest.mark.parametrize("name", ["0.0.0", ".zarray"])
def test_a_missing_chunk_is_not_filled_with_zeros(name: str, theirs: Make) -> None:
    folder = theirs("zarr")
    (folder / NAME / name).unlink()
    kind = CheckpointCorrupt if name == "0.0.0" else CheckpointMismatch
    refused(folder, kind, "blocks.0.mlp_block.ffw_up.w")


def test_a_chunk_under_another_name_is_refused(theirs: Make) -> None:
    folder = theirs("zarr")
    os.rename(folder / NAME / "0.0.0", folder / NAME / "0.0.1")
    refused(folder, CheckpointCorrupt, "chunk 0.0.0 is missing")


@pytest.mark.parametrize("left", [0, 1, 10, 100, -1])
def test_a_truncated_chunk_is_refused(left: int, theirs: Make) -> None:
    folder = theirs("zarr")
    path = folder / NAME / "0.0.0"
    path.write_bytes(path.read_bytes()[:left])
    refused(folder, CheckpointCorrupt, "7680 bytes")


def test_a_folder_of_one_packed_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"\x81\xa1a\xa1b")
    with pytest.raises(CheckpointError, match="msgpack"):
        load_model(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("layout", ["ocdbt", "zarr"])
def test_a_pipe_in_place_of_a_file_does_not_hang(layout: str, theirs: Make) -> None:
    folder = theirs(layout)
    os.mkfifo(folder / "d" if layout == "zarr" else folder / "d" / "pipe")
    refused(folder, CheckpointCorrupt, "not a file")


def bomb(blocks: int) -> bytes:
    """A zstd frame of a few bytes a block, each of which decodes to 128 KiB of zeros."""
    size = (128 * 1024) << 3
    body = b"".join(
        (size | 2 | (i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks)
    )
    return b"\x28\xb5\x2f\xfd\x00\x58" + body


@pytest.mark.parametrize("layout", ["ocdbt", "zarr"])
def test_a_few_bytes_that_would_decode_to_gigabytes_are_not_decoded(
    layout: str, theirs: Make
) -> None:
    folder = theirs(layout)
    data = bomb(100_000)  # 400 kB for 13 GB
    if layout == "zarr":
        (folder / NAME / "0.0.0").write_bytes(data)
        rows = 100_000 * 128 * 1024 // (24 * 40 * 4)
        edit_json(
            folder / NAME / ".zarray",
            lambda m: m.update(shape=[rows, 24, 40], chunks=[rows, 24, 40]),
        )
    else:
        head = (folder / "manifest.ocdbt").read_bytes()
        length = (14 + len(data) + 4).to_bytes(8, "little")
        (folder / "manifest.ocdbt").write_bytes(head[:4] + length + head[12:14] + data + head[-4:])
    refused(folder, CheckpointCorrupt)


def test_the_least_and_most_of_a_zstd_frame() -> None:
    assert decoded_bounds(memoryview(bomb(3))) == (3 * 2**17, 3 * 2**17)
    memory = ts.KvStore.open("memory://").result()
    for size in (0, 1, 255, 256, 65_791, 65_792, 400_000, 3_000_000):
        spec = {
            "driver": "zarr",
            "kvstore": "memory://x/",
            "metadata": {"shape": [size or 1], "chunks": [size or 1], "dtype": "|u1",
                         "compressor": {"id": "zstd", "level": 1}},
        }  # fmt: skip
        text = bytes(random.Random(size).choices(b"abcdef", k=size or 1))
        context = ts.Context()
        store = ts.open(spec, create=True, context=context).result()
        store.write(list(text)).result()
        memory = ts.KvStore.open("memory://x/", context=context).result()
        frame = memoryview(memory.read("0").result().value)
        least, most = decoded_bounds(frame) or (-1, -1)
        assert least <= len(text) <= most <= max(16 * len(text), 2**17)
        assert decoded_bounds(frame[:-1]) is None
        assert decoded_bounds(memoryview(bytes(frame) + b"\0")) is None


@pytest.mark.parametrize(
    "data", [b"", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\x08\0\0\0\0", b"\x50\x2a\x4d\x18" * 4]
)
def test_what_is_no_zstd_frame_has_no_size(data: bytes) -> None:
    assert decoded_bounds(memoryview(data)) is None


def test_a_deep_tree_of_keys_is_walked_to_every_leaf(tmp_path: Path) -> None:
    spec = {
        "driver": "ocdbt",
        "base": f"file://{tmp_path}/",
        "config": {"max_decoded_node_bytes": 300, "max_inline_value_bytes": 4},
    }
    store = ts.KvStore.open(spec).result()
    rng = random.Random(1)
    wanted = {f"params.blocks.{i}.x/{i % 3}": rng.randbytes(rng.choice([3, 50])) for i in range(99)}
    wanted |= {f"a{'b' * i}": b"value" for i in range(20)}
    with ts.Transaction() as transaction:
        for key, value in wanted.items():
            store.with_transaction(transaction)[key] = value
    sizes = {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    spans = read_ocdbt(tmp_path, sizes, 10**6)
    found = {
        key: span.file.read_bytes()[span.begin :][: span.size]
        if span.inline is None
        else span.inline
        for key, span in spans.items()
    }
    assert found == wanted


@pytest.mark.parametrize("what", ["cut off", "gone", "a manifest cut off", "an empty manifest"])
def test_a_database_without_its_data_is_refused(what: str, theirs: Make) -> None:
    folder = theirs("ocdbt")
    manifest = folder / "manifest.ocdbt"
    largest = max((folder / "ocdbt.process_0" / "d").iterdir(), key=lambda p: p.stat().st_size)
    if what == "cut off":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif what == "gone":
        largest.unlink()
    else:
        manifest.write_bytes(manifest.read_bytes()[: 50 if what == "a manifest cut off" else 0])
    refused(folder, CheckpointCorrupt, "again")


def test_data_outside_the_folder_is_not_opened(theirs: Make, tmp_path: Path) -> None:
    """The database names its files; a link in place of one is followed, a path never leaves."""
    from griffin_lm.checkpoints.deepmind.ocdbt import _span

    folder = theirs("ocdbt")
    (tmp_path / "secret").write_bytes(b"x" * 100)
    sizes = {tmp_path / "secret": 100, folder / "manifest.ocdbt": 10}
    for location in (
        "value::../../secret:0:10", "value:../:../secret:0:10", "value::/etc/passwd:0:1",
        f"value::{tmp_path}/secret:0:10", "value::a%2fb:0:1", "value::d/../../../secret:0:1",
        "value::manifest.ocdbt:5:6", "value::manifest.ocdbt:-1:6", "value:", "",
        "value::manifest.ocdbt:0:99999999999999999999",
    ):  # fmt: skip
        with pytest.raises(CheckpointCorrupt, match="manifest"):
            _span(folder, location, sizes)
    assert _span(folder, "value::manifest.ocdbt:4:6", sizes)[1:3] == (4, 6)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("layout", ["ocdbt", "zarr", "ours"])
def test_random_damage_never_ends_in_another_error(
    layout: str, seed: int, theirs: Make, tmp_path: Path
) -> None:
    """60 damaged folders each. Their chunks have no checksums: names and shapes are right, then."""
    rng = random.Random(seed)
    if layout == "ours":
        save_model(random_model(), tmp_path / "m", FORM)
        folder = tmp_path / "m" / "checkpoint"
    else:
        folder = theirs(layout)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if path.parent.name != "array_metadatas"]
    refusals = 0
    for _ in range(60):
        path = rng.choice(files)
        data = path.read_bytes()
        begin = rng.choice([0, 0, max(len(data) - 1500, 0)])
        end = min(begin + rng.choice([300, 2000]), len(data))
        path.write_bytes(data[:begin] + damage(data[begin:end], rng) + data[end:])
        try:
            loaded = load_model(folder, config=KNOWN)
        except GriffinError as error:
            refusals += 1
            assert str(folder) in str(error)
        else:
            assert not any(p.is_meta for p in loaded.parameters())
        path.write_bytes(data)
    assert refusals > 5
