"""DeepMind's `.pt`: loads, round-trips, and refuses whatever is not a plain dict of tensors."""

import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin_lm.checkpoints import detect, load_model, open_source, read_config, save_model
from griffin_lm.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    GriffinError,
)
from tests.checkpoints.helpers import TINY, assert_same_tensors, random_model, tensors
from tests.checkpoints.test_fuzz import damage

FORM = "deepmind-torch"
KNOWN: dict[str, Any] = {"window": 8, "logit_cap": 30.0, "scale_embeddings": True}


@pytest.fixture
def their_dict(tmp_path: Path) -> dict[str, Tensor]:
    """A model as DeepMind's package has it in memory."""
    save_model(random_model(), tmp_path / "made", FORM)
    return torch.load(tmp_path / "made" / "made.pt", weights_only=True)


# ---- what is saved comes back


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_saved_model_loads_to_the_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    model = random_model().to(dtype)
    save_model(model, tmp_path / "m", FORM)
    loaded = load_model(tmp_path / "m")
    assert detect(tmp_path / "m") == detect(tmp_path / "m" / "m.pt") == FORM
    assert loaded.config == model.config == read_config(tmp_path / "m")
    assert_same_tensors(tensors(loaded), tensors(model))
    assert loaded.origin.model() == model.origin.model()


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "a" / "m", FORM)
    save_model(load_model(tmp_path / "a" / "m"), tmp_path / "b" / "m", FORM)
    for name in ("config.json", "m.pt"):
        one, other = (tmp_path / x / "m" / name for x in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()


def test_torch_loads_the_file_under_deepminds_names(their_dict: dict[str, Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in their_dict.items()}
    recurrent, attention, rest = 4 * 13, 5, 5 * 6  # their layers, and norms and MLPs of all
    assert len(shapes) == recurrent + attention + rest + 2
    assert shapes["embedder.input_embedding"] == (96, 32)
    assert shapes["blocks.0.recurrent_block.conv_1d.w"] == (4, 32)
    assert shapes["blocks.1.recurrent_block.rg_lru.a_gate.w"] == (2, 16, 16)
    assert shapes["blocks.2.attention_block.proj_k.weight"] == (16, 32)
    assert shapes["blocks.4.mlp_block.ffw_up.w"] == (2, 32, 96)
    assert shapes["blocks.4.mlp_block.ffw_up.b"] == (2, 1, 1, 96)
    assert shapes["blocks.4.mlp_block.ffw_down.weight"] == (32, 96)


def test_every_tensor_lies_at_a_multiple_of_64_bytes(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    found = torch.load(tmp_path / "m" / "m.pt", weights_only=True, mmap=True)
    first = min(tensor.data_ptr() for tensor in found.values())
    assert all((tensor.data_ptr() - first) % 64 == 0 for tensor in found.values())
    assert zipfile.ZipFile(tmp_path / "m" / "m.pt").testzip() is None


def test_names_may_be_wrapped_in_params(their_dict: dict[str, Tensor], tmp_path: Path) -> None:
    for wrapper in ("params.", "params.params."):
        torch.save({wrapper + name: t for name, t in their_dict.items()}, tmp_path / "w.pt")
        loaded = load_model(tmp_path / "w.pt", config=TINY)
        assert_same_tensors(tensors(loaded), tensors(random_model()))


def test_what_torch_itself_writes_loads(their_dict: dict[str, Tensor], tmp_path: Path) -> None:
    """Matrices transposed as their converter leaves them, parameters, an OrderedDict with notes."""
    theirs: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in their_dict.items():
        turned = tensor.T.contiguous().T if tensor.dim() == 2 else tensor
        theirs[name] = torch.nn.Parameter(turned)
    theirs._metadata = OrderedDict({"": {"version": 1}})  # as Module.state_dict adds
    torch.save(theirs, tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt", config=KNOWN)
    assert_same_tensors(tensors(loaded), tensors(random_model()))
    assert loaded.config == TINY


def test_a_file_written_without_checksums_loads(
    their_dict: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(their_dict, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same_tensors(
        tensors(load_model(tmp_path / "w.pt", config=TINY)), tensors(random_model())
    )


# ---- files and folders


def test_a_path_that_ends_in_pt_is_the_file(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "out" / "2b-it.pt", FORM)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["2b-it.pt", "README.md", "config.json"]
    assert_same_tensors(tensors(load_model(tmp_path / "out" / "2b-it.pt")), tensors(random_model()))
    save_model(random_model(seed=5), tmp_path / "out" / "2b-it.pt", FORM)  # its own may be replaced
    assert_same_tensors(tensors(load_model(tmp_path / "out")), tensors(random_model(seed=5)))


def test_a_file_saved_among_others_replaces_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "model.safetensors").write_text("mine too")
    with pytest.raises(CheckpointError, match=r"would replace README\.md"):
        save_model(random_model(), tmp_path / "m.pt", FORM)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "model.safetensors"]
    (tmp_path / "README.md").unlink()
    save_model(random_model(), tmp_path / "m.pt", FORM)
    assert (tmp_path / "model.safetensors").read_text() == "mine too"


def test_several_files_are_listed_unless_config_json_names_one(
    their_dict: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    torch.save(their_dict, folder / "other.pt")
    load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"2 \.pt files.*made\.pt, .*other\.pt"):
        load_model(folder)


def test_another_format_saved_over_it_leaves_no_pt(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    save_model(random_model(), tmp_path / "m", "huggingface")
    assert not (tmp_path / "m" / "m.pt").exists()
    save_model(random_model(seed=5), tmp_path / "m", FORM)
    assert not (tmp_path / "m" / "model.safetensors").exists()
    assert_same_tensors(tensors(load_model(tmp_path / "m")), tensors(random_model(seed=5)))


def test_a_file_that_config_json_names_and_is_gone_is_named(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    (tmp_path / "m" / "m.pt").unlink()
    with pytest.raises(CheckpointNotFound, match=r"m\.pt"):
        load_model(tmp_path / "m")


# ---- what is not a plain dict of dense float tensors


def refused(path: Path, kind: type[GriffinError], *words: str) -> None:
    with pytest.raises(GriffinError) as caught:
        load_model(path, config=TINY)
    assert type(caught.value) is kind, repr(caught.value)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 3000


class Runs:
    """Runs code where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": Runs(str(tmp_path / "ran"))}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", CheckpointError, "mkdir", "state_dict")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Runs(str(tmp_path / "ran"))))
    refused(tmp_path / "old.pt", CheckpointError, "pickle", "torch.save")
    assert not (tmp_path / "ran").exists()


def test_a_file_of_old_pytorch_is_refused_with_the_reason(
    their_dict: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(their_dict, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "w.pt", CheckpointError, "before 1.6")


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda d: list(d.values()),
    "one tensor": lambda d: d["final_norm.scale"],
    "a number": lambda d: d | {"step": 7},
    "a nested dict": lambda d: {"model": d},
    "an optimiser beside it": lambda d: d | {"optimizer": {"lr": 0.1}},
    "integers": lambda d: d | {"final_norm.scale": torch.ones(32, dtype=torch.int64)},
    "complex numbers": lambda d: d | {"final_norm.scale": torch.ones(32, dtype=torch.complex64)},
    "a sparse tensor": lambda d: d | {"final_norm.scale": torch.ones(32).to_sparse()},
    "a tensor without memory": lambda d: d | {"final_norm.scale": torch.ones(32, device="meta")},
    "a number for a name": lambda d: d | {3: torch.ones(32)},
    "a tensor with a stride of 0": lambda d: d | {"final_norm.scale": torch.ones(1).expand(32)},
    "a tensor with gaps": lambda d: d | {"final_norm.scale": torch.ones(64)[::2]},
}


@pytest.mark.parametrize("what", WRONG)
def test_it_must_be_a_plain_dict_of_dense_float_tensors(
    what: str, their_dict: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(WRONG[what](their_dict), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"w\.pt"):
        load_model(tmp_path / "w.pt", config=TINY)


def test_missing_and_misnamed_tensors_are_named(
    their_dict: dict[str, Tensor], tmp_path: Path
) -> None:
    theirs = dict(their_dict)
    theirs["strange"] = theirs.pop("final_norm.scale")
    torch.save(theirs, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", CheckpointMismatch, "1 missing: final_norm.scale", "strange (32,)")


def test_a_table_of_many_empty_views_allocates_nothing(tmp_path: Path) -> None:
    """A small file whose one storage is claimed by many tensors is larger than it can be."""
    one = torch.randn(1000)
    torch.save({f"t{i}": one for i in range(1000)}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", CheckpointCorrupt, "larger than the file")


def rewritten(
    path: Path, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED
) -> None:
    """The zip file anew, each entry changed; checksums are right again."""
    with zipfile.ZipFile(path) as old:
        entries = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", method) as new:
        for name, data in entries:
            new.writestr(name, change(name, data))


def test_a_compressed_entry_is_refused(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    rewritten(tmp_path / "m" / "m.pt", lambda _, data: data, zipfile.ZIP_DEFLATED)
    refused(tmp_path / "m" / "m.pt", CheckpointCorrupt, "compressed")


def test_a_repacked_file_loads(tmp_path: Path) -> None:
    """Not aligned, and without PyTorch's padding: still the same tensors."""
    save_model(random_model(), tmp_path / "m", FORM)
    rewritten(tmp_path / "m" / "m.pt", lambda _, data: data)
    assert_same_tensors(tensors(load_model(tmp_path / "m")), tensors(random_model()))


def test_a_storage_shorter_than_its_tensor_is_refused(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    path = tmp_path / "m" / "m.pt"
    rewritten(path, lambda name, data: data[:-4] if name.endswith("/data/3") else data)
    refused(path, CheckpointCorrupt, "not those that its entries hold")


def test_a_table_that_claims_more_than_its_storage_is_refused(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    path = tmp_path / "m" / "m.pt"
    rewritten(path, lambda n, data: data.replace(b"K\x60K ", b"K\x60K!") if "pkl" in n else data)
    refused(path, CheckpointCorrupt)


@pytest.mark.parametrize("name", ["code/x.py", "constants.pkl", "../../evil"])
def test_a_program_or_an_archive_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    path = tmp_path / "m" / "m.pt"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name if name.startswith("..") else f"m/{name}", b"x")
    refused(path, CheckpointError, "program or an archive")


def test_an_absurdly_nested_table_is_refused(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    path = tmp_path / "m" / "m.pt"
    rewritten(
        path, lambda n, data: b"\x80\x02" + b"]" * 10**6 + b"a" * 10**6 if "pkl" in n else data
    )
    refused(path, CheckpointCorrupt)


@pytest.mark.parametrize("left", [0, 1, 3, 4, 30, 1000, -1, -30, -2000])
def test_a_truncated_file_is_refused(left: int, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    path = tmp_path / "m" / "m.pt"
    path.write_bytes(path.read_bytes()[:left])
    refused(path, CheckpointCorrupt, "again")


def test_a_flipped_bit_in_a_tensor_is_found_and_named(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", FORM)
    path = tmp_path / "m" / "m.pt"
    found = torch.load(path, weights_only=True, mmap=True)
    raw = bytearray(path.read_bytes())
    at = raw.find(found["final_norm.scale"].numpy().tobytes())
    raw[at + 5] ^= 4
    path.write_bytes(raw)
    refused(path, CheckpointCorrupt, "final_norm.scale", "checksum")


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_is_found_or_harmless(seed: int, tmp_path: Path) -> None:
    """100 damaged files each: a GriffinError that names the folder, or the very same model."""
    rng = random.Random(seed)
    save_model(random_model(), tmp_path / "m", FORM)
    path = tmp_path / "m" / "m.pt"
    good, reference, refusals = path.read_bytes(), tensors(random_model()), 0
    for _ in range(100):
        end = rng.choice([len(good), 4000])
        middle = rng.choice([0, len(good) - 9000])
        cut = slice(middle, min(middle + end, len(good)))
        path.write_bytes(good[: cut.start] + damage(good[cut], rng) + good[cut.stop :])
        try:
            loaded = load_model(path)
        except GriffinError as error:
            refusals += 1
            assert str(tmp_path) in str(error)
        else:
            assert_same_tensors(tensors(loaded), reference)
    assert refusals > 60


def test_reading_the_header_alone_gives_shapes_and_dtypes(tmp_path: Path) -> None:
    save_model(random_model().bfloat16(), tmp_path / "m", FORM)
    source = open_source(tmp_path / "m")
    assert source.nbytes == sum(p.nbytes for p in random_model().bfloat16().parameters())
    assert source.dtype("final_norm.scale") == torch.bfloat16
    assert source.files == [tmp_path / "m" / "m.pt"]


def test_a_model_that_their_package_cannot_run_is_not_saved(tmp_path: Path) -> None:
    from dataclasses import replace

    from griffin_lm.mixers import RGLRU, LocalAttention

    for config, why in [
        (replace(TINY, norm_eps=1e-5), "norm_eps=1e-06"),
        (replace(TINY, pattern=(RGLRU(width=32, heads=4), TINY.pattern[2])), "one number of heads"),
        (replace(TINY, pattern=(LocalAttention(heads=2, head_dim=8, window=4),)), "fill the width"),
        (
            replace(TINY, pattern=(LocalAttention(heads=2, head_dim=16, window=4, kv_heads=2),)),
            "kv_heads=1",
        ),
        (replace(TINY, pattern=(RGLRU(width=32, heads=2, conv_width=3),)), "conv_width=4"),
    ]:
        with pytest.raises(CheckpointMismatch, match=why):
            save_model(random_model(config), tmp_path / "m", FORM)
    assert list(tmp_path.iterdir()) == []


def test_bytes_of_any_kind_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/b", b"c")
    for data in (b"", b"hello", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), buffer.getvalue()):
        path.write_bytes(data)
        refused(path, CheckpointCorrupt)
