"""Damage of every kind ends in one GriffinError that names the file, and the tensor if it can."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin_lm.checkpoints import load_model, read_config, save_model
from griffin_lm.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    GriffinError,
)
from tests.checkpoints.helpers import (
    WEIGHTS,
    Good,
    edit_header,
    edit_json,
    join_file,
    random_model,
    split_file,
)

INDEX = "model.safetensors.index.json"
GATE = {
    "griffin": "layers.0.mlp.gate.weight",
    "huggingface": "model.layers.0.mlp_block.gate_proj.weight",
}
BOTH = pytest.mark.parametrize("form", ["griffin", "huggingface"])


def refused(folder: Path, kind: type[GriffinError], *words: str) -> None:
    with pytest.raises(GriffinError) as caught:
        load_model(folder)
    assert type(caught.value) is kind, repr(caught.value)
    message = str(caught.value)
    assert str(folder) in message
    for word in words:
        assert word in message
    assert len(message) < 3000, "a message is to be read"


# ---- the file


@BOTH
@pytest.mark.parametrize("left", [0, 1, 7, 8, 9, 1000, -1, -5000])
def test_a_truncated_file_is_refused(form: str, left: int, good: Good) -> None:
    folder = good(form)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:left])
    refused(folder, CheckpointCorrupt, WEIGHTS, "again")


@BOTH
@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 100_000_001, 10**6, 0, 1])
def test_an_absurd_header_length_is_refused(form: str, length: int, good: Good) -> None:
    folder = good(form)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(length.to_bytes(8, "little") + data[8:])
    refused(folder, CheckpointCorrupt, WEIGHTS)


def test_a_header_length_is_not_believed_before_memory_is_given(good: Good) -> None:
    """A sparse file of 200 MB that claims a header of 150 MB: refused by the limit, not read."""
    folder = good("huggingface")
    with open(folder / WEIGHTS, "r+b") as file:
        file.write((150_000_000).to_bytes(8, "little"))
        file.truncate(200_000_000)
    refused(folder, CheckpointCorrupt, "150000000")


@BOTH
def test_bytes_after_the_tensors_are_refused(form: str, good: Good) -> None:
    folder = good(form)
    with open(folder / WEIGHTS, "ab") as file:
        file.write(b"\0" * 8)
    refused(folder, CheckpointCorrupt, "8 bytes too many")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"1" * 10_000,
    ],
)
def test_a_header_that_is_no_json_object_is_refused(header: bytes, good: Good) -> None:
    folder = good("huggingface")
    join_file(folder / WEIGHTS, header, b"")
    refused(folder, CheckpointCorrupt, WEIGHTS)


Edit = Callable[[dict[str, Any], str], Any]
ROWS: dict[str, Edit] = {
    "not an object": lambda h, n: h.update({n: [1]}),
    "empty": lambda h, n: h.update({n: {}}),
    "no shape": lambda h, n: h[n].pop("shape"),
    "a shape of text": lambda h, n: h[n].update(shape="32"),
    "a negative shape": lambda h, n: h[n].update(shape=[-96, -32]),
    "a shape of fractions": lambda h, n: h[n].update(shape=[96.0, 32]),
    "a shape of truths": lambda h, n: h[n].update(shape=[True, 3072]),
    "an absurd shape": lambda h, n: h[n].update(shape=[2**61, 2**61]),
    "an endless shape": lambda h, n: h[n].update(shape=[2**61] * 5000),
    "another size": lambda h, n: h[n].update(shape=[96, 33]),
    "an unknown dtype": lambda h, n: h[n].update(dtype="F33"),
    "no dtype": lambda h, n: h[n].update(dtype=None),
    "an integer dtype": lambda h, n: h[n].update(dtype="I32"),
    "another width of dtype": lambda h, n: h[n].update(dtype="BF16"),
    "one offset": lambda h, n: h[n].update(data_offsets=[0]),
    "offsets backwards": lambda h, n: h[n]["data_offsets"].reverse(),
    "offsets shifted": lambda h, n: h[n].update(
        data_offsets=[offset + 4 for offset in h[n]["data_offsets"]]
    ),
    "offsets beyond the end": lambda h, n: h[n].update(
        data_offsets=[offset + 10**12 for offset in h[n]["data_offsets"]]
    ),
    "offsets on another tensor": lambda h, n: h[n].update(data_offsets=[0, 96 * 32 * 4]),
}


@BOTH
@pytest.mark.parametrize("what", ROWS)
def test_a_tensor_described_wrongly_is_named(form: str, what: str, good: Good) -> None:
    folder = good(form)
    edit_header(folder / WEIGHTS, lambda header: ROWS[what](header, GATE[form]))
    # of two tensors that meet wrongly either may be named
    overlap = what in ("offsets on another tensor", "offsets shifted")
    refused(folder, CheckpointCorrupt, WEIGHTS, *([] if overlap else [GATE[form]]))


@pytest.mark.parametrize("metadata", [1, [], {"a": 1}, None])
def test_metadata_that_are_not_text_are_refused(metadata: Any, good: Good) -> None:
    folder = good("huggingface")
    edit_header(folder / WEIGHTS, lambda header: header.update(__metadata__=metadata))
    refused(folder, CheckpointCorrupt, "metadata")


# ---- the tensors


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Writes the file anew, without our checksums."""
    from safetensors.torch import load_file, save_file

    found = load_file(folder / WEIGHTS)
    change(found)
    save_file({name: t.contiguous() for name, t in found.items()}, folder / WEIGHTS)


def test_a_misnamed_tensor_is_named_twice(good: Good) -> None:
    folder, name = good("huggingface"), GATE["huggingface"]
    edit_tensors(folder, lambda t: t.update({"strange": t.pop(name)}))
    refused(folder, CheckpointMismatch, WEIGHTS, f"1 missing: {name} (96, 32)", "strange (96, 32)")


def test_a_missing_tensor_is_named(good: Good) -> None:
    folder, name = good("huggingface"), GATE["huggingface"]
    edit_tensors(folder, lambda t: t.pop(name))
    refused(folder, CheckpointMismatch, WEIGHTS, f"1 missing: {name}")


def test_an_extra_tensor_is_named(good: Good) -> None:
    folder = good("huggingface")
    edit_tensors(folder, lambda t: t.update(extra=torch.zeros(3)))
    refused(folder, CheckpointMismatch, "1 not part of the model: extra (3,)")


def test_a_misshaped_tensor_is_named_with_both_shapes(good: Good) -> None:
    folder, name = good("huggingface"), GATE["huggingface"]
    edit_tensors(folder, lambda t: t.update({name: t[name].T}))
    refused(folder, CheckpointMismatch, f"{name}: (32, 96) instead of (96, 32)")


def test_a_conv_of_two_kernels_is_not_cut_to_one(good: Good) -> None:
    folder = good("huggingface")
    name = "model.layers.0.temporal_block.conv_1d.weight"
    edit_tensors(folder, lambda t: t.update({name: torch.cat([t[name]] * 2, dim=1)}))
    refused(folder, CheckpointMismatch, f"{name}: (32, 2, 4) instead of (32, 1, 4)")


def test_of_many_wrong_tensors_ten_are_named(good: Good) -> None:
    folder = good("huggingface")
    edit_tensors(folder, lambda t: t.update({f"extra.{i}": torch.zeros(1) for i in range(5000)}))
    refused(folder, CheckpointMismatch, "5000 not part of the model", "and 4990 more")


def test_an_integer_tensor_is_refused(good: Good) -> None:
    folder, name = good("huggingface"), GATE["huggingface"]
    edit_tensors(folder, lambda t: t.update({name: t[name].to(torch.int32)}))
    refused(folder, CheckpointCorrupt, name, "I32")


def test_weights_that_are_not_numbers_are_the_models_own_affair(good: Good) -> None:
    folder, name = good("huggingface"), GATE["huggingface"]
    edit_tensors(folder, lambda t: t[name].fill_(float("nan")))
    assert load_model(folder).state_dict()["layers.0.mlp.gate.weight"].isnan().all()


def test_a_config_of_more_layers_than_the_file_is_refused_before_it_is_built(good: Good) -> None:
    folder = good("huggingface")
    edit_json(folder / "config.json", lambda c: c.update(num_hidden_layers=10**9))
    refused(folder, CheckpointMismatch, "1000000000 layers")


def test_a_config_of_absurd_widths_allocates_nothing(good: Good) -> None:
    folder = good("huggingface")
    edit_json(folder / "config.json", lambda c: c.update(vocab_size=2**31 - 1, lru_width=2**30))
    refused(folder, CheckpointMismatch, "embed_tokens.weight: (96, 32)")


# ---- folders


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", CheckpointNotFound)


def test_an_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, CheckpointNotFound, "config.json")


def test_a_file_in_place_of_a_folder(good: Good) -> None:
    folder = good("griffin")
    with pytest.raises(CheckpointNotFound, match="give the folder"):
        load_model(folder / WEIGHTS)


@BOTH
def test_a_folder_without_weights(form: str, good: Good) -> None:
    folder = good(form)
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    refused(folder, CheckpointNotFound, WEIGHTS, "pytorch_model.bin is pickled")


@BOTH
@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_folder_in_place_of_a_file(form: str, name: str, good: Good) -> None:
    folder = good(form)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(CheckpointError, match=name):
        load_model(folder)


# ---- shards


def test_a_missing_shard_is_named(good: Good) -> None:
    folder = good("huggingface in shards")
    shard = sorted(folder.glob("model-*"))[1]
    shard.unlink()
    refused(folder, CheckpointNotFound, shard.name)


@pytest.mark.parametrize(
    "file",
    [
        "../other/model.safetensors",
        "/etc/passwd",
        "..\\model.safetensors",
        "sub/model.safetensors",
        ".hidden.safetensors",
        "pytorch_model.bin",
        "",
        "a\nb.safetensors",
        "model.safetensors\n",
    ],
)
def test_an_index_that_points_elsewhere_is_refused(file: str, good: Good, tmp_path: Path) -> None:
    folder = good("huggingface in shards")
    (tmp_path / "other").mkdir()
    join_file(tmp_path / "other" / WEIGHTS, {}, b"")
    name = GATE["huggingface"]
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({name: file}))
    refused(folder, CheckpointCorrupt, INDEX, "beside the index")


@pytest.mark.parametrize("where", [None, [], "x", {"a": 1}, {"a": None}])
def test_an_index_without_a_map_is_refused(where: Any, good: Good) -> None:
    folder = good("huggingface in shards")
    edit_json(folder / INDEX, lambda index: index.update(weight_map=where))
    refused(folder, CheckpointCorrupt, INDEX, "weight_map")


def test_an_index_that_disagrees_with_its_shards_is_refused(good: Good) -> None:
    folder, name = good("huggingface in shards"), GATE["huggingface"]
    last = sorted(path.name for path in folder.glob("model-*"))[-1]
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({name: last}))
    refused(folder, CheckpointMismatch, name, "index and shards")


def test_a_tensor_that_the_index_leaves_out_is_refused(good: Good) -> None:
    folder, name = good("huggingface in shards"), "model.layers.0.temporal_pre_norm.weight"
    edit_json(folder / INDEX, lambda index: index["weight_map"].pop(name))
    refused(folder, CheckpointMismatch, name, "against the index")


def test_an_empty_index_lacks_every_tensor(good: Good) -> None:
    folder = good("huggingface in shards")
    edit_json(folder / INDEX, lambda index: index.update(weight_map={}))
    refused(folder, CheckpointMismatch, "only 0 tensors")


# ---- config.json


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"config"',
        b"{",
        b"\x80\x81",
        b"[" * 200_000,
        b'{"model_type": "recurrent_gemma", "a": ' * 50_000,
        b'{"model_type": "recurrent_gemma", "model_type": "recurrent_gemma"}',
        b'{"format": "griffin-lm", "version": 1}',
        b'{"format": "griffin-lm", "version": 1, "model": []}',
        b'{"format": "griffin-lm", "version": 1, "model": {}}',
        b'{"format": "griffin-lm", "version": true, "model": {}}',
        b'{"format": "griffin-lm", "version": null, "model": {}}',
    ],
)
def test_a_config_that_is_none_is_refused(form: str, text: bytes, good: Good) -> None:
    folder = good(form)
    (folder / "config.json").write_bytes(text)
    refused(folder, CheckpointCorrupt, "config.json")


def test_a_config_too_large_to_be_one_is_not_read(good: Good) -> None:
    folder = good("griffin")
    with open(folder / "config.json", "r+b") as file:
        file.truncate(10**9)
    refused(folder, CheckpointCorrupt, "1000000000 bytes")


def test_a_later_version_asks_for_an_upgrade(good: Good) -> None:
    folder = good("griffin")
    edit_json(folder / "config.json", lambda config: config.update(version=3))
    refused(folder, CheckpointError, "version 3", "upgrade")
    edit_json(folder / "config.json", lambda config: config.update(version=2))
    refused(folder, CheckpointCorrupt, "version 2", "quantised")


@pytest.mark.parametrize(
    ("name", "value"),
    [("vocab", "96"), ("width", 32.5), ("layers", None), ("pattern", {}), ("surprise", 1),
     ("pattern", []), ("pattern", [{"kind": "warp"}]), ("vocab", -1), ("norm_eps", -1.0)],
)  # fmt: skip
def test_a_setting_that_is_none_is_named(name: str, value: Any, good: Good) -> None:
    folder = good("griffin")
    edit_json(folder / "config.json", lambda config: config["model"].update({name: value}))
    refused(folder, CheckpointCorrupt, "config.json", name)


def test_a_config_changed_after_saving_is_refused_unless_it_is_meant(good: Good) -> None:
    folder = good("griffin")
    edit_json(folder / "config.json", lambda config: config["model"].update(logit_cap=31.0))
    refused(folder, CheckpointCorrupt, "config.json", "not the one that was saved")
    assert load_model(folder, config=read_config(folder)).config.logit_cap == 31.0


# ---- flipped bits


@pytest.mark.parametrize("kind", ["griffin", "griffin in shards"])
def test_a_flipped_bit_in_a_tensor_is_found_and_named(kind: str, good: Good) -> None:
    folder = good(kind)
    for path in sorted(folder.glob("*.safetensors")):
        header, _ = split_file(path)
        del header["__metadata__"]
        name, row = random.choice(sorted(header.items()))
        data = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        at = start + random.randrange(*row["data_offsets"])
        data[at] ^= 1 << random.randrange(8)
        path.write_bytes(data)
        refused(folder, CheckpointCorrupt, path.name, name, "checksum")
        data[at] = split_file(good(kind) / path.name)[1][at - start]


def test_a_dtype_of_the_same_width_does_not_pass(good: Good, tmp_path: Path) -> None:
    save_model(random_model().bfloat16(), tmp_path / "b")
    name = GATE["griffin"]
    edit_header(tmp_path / "b" / WEIGHTS, lambda header: header[name].update(dtype="F16"))
    refused(tmp_path / "b", CheckpointCorrupt, name, "checksum")


def test_our_format_without_its_checksums_is_refused(good: Good) -> None:
    folder = good("griffin")
    edit_header(folder / WEIGHTS, lambda header: header.pop("__metadata__"))
    refused(folder, CheckpointCorrupt, WEIGHTS, "checksums")


@pytest.mark.parametrize("checksums", ["{}", "null", "[", '{"crc32": {}}', '{"crc32": 1}'])
def test_damaged_checksums_are_refused(checksums: str, good: Good) -> None:
    folder = good("griffin")
    edit_header(folder / WEIGHTS, lambda header: header["__metadata__"].update(griffin=checksums))
    refused(folder, CheckpointCorrupt, WEIGHTS, "checksums")


def test_config_and_weights_of_two_checkpoints_do_not_load(good: Good, tmp_path: Path) -> None:
    from dataclasses import replace

    folder = good("griffin")
    model = random_model(replace(random_model().config, norm_eps=1e-5))
    save_model(model, tmp_path / "other")
    (folder / "config.json").write_bytes((tmp_path / "other" / "config.json").read_bytes())
    refused(folder, CheckpointCorrupt, "config.json")
    assert json.loads((folder / "config.json").read_text())["model"]["norm_eps"] == 1e-5
