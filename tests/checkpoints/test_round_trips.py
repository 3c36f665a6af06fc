"""What is saved comes back to the bit, under names that are a bijection, whole or not at all."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import griffin_lm as griffin
from griffin_lm.checkpoints import FORMATS, detect, load_model, read_config, save_model
from griffin_lm.checkpoints.names import Rename, expand
from griffin_lm.errors import CheckpointError, CheckpointMismatch, ConfigError, GriffinError
from griffin_lm.mixers import RGLRU, LocalAttention
from tests.checkpoints.helpers import TINY, assert_same_tensors, random_model, tensors

PRESETS = ["tiny-griffin", "tiny-hawk", "recurrentgemma-2b", "recurrentgemma-9b", "griffin-code-7b"]
BOTH = pytest.mark.parametrize("form", ["griffin", "huggingface"])


def names(form: str, preset: str) -> tuple[Rename, ...]:
    return FORMATS[form].dialect_for(griffin.PRESETS[preset]).names


@pytest.mark.parametrize("form", list(FORMATS))
@pytest.mark.parametrize("preset", PRESETS)
def test_the_table_is_a_bijection_over_the_parameters(form: str, preset: str) -> None:
    parameters = dict(griffin.build(preset, device="meta").named_parameters())
    plan = expand(names(form, preset), parameters, form)
    assert [row.ours for row in plan] == list(parameters)
    assert len({(row.theirs, row.part) for row in plan}) == len(parameters)
    for row in plan:
        ours = parameters[row.ours]
        assert row.load(row.save(ours)).shape == ours.shape


@pytest.mark.parametrize("form", ["huggingface", "deepmind-torch", "deepmind-flax"])
@pytest.mark.parametrize("preset", ["recurrentgemma-2b", "recurrentgemma-9b"])
def test_every_row_of_a_table_is_used_by_the_published_models(form: str, preset: str) -> None:
    parameters = dict(griffin.build(preset, device="meta").named_parameters())
    for row in names(form, preset):
        assert any(row.for_parameter(name) for name in parameters), row.ours


def test_the_published_sizes_are_those_of_the_paper() -> None:
    config = griffin.PRESETS["recurrentgemma-2b"]
    parameters = griffin.build(config, device="meta").parameters()
    assert sum(p.numel() for p in parameters) == 2_682_862_080


def test_a_parameter_without_a_name_in_the_format_is_refused() -> None:
    with pytest.raises(CheckpointMismatch, match=r"no name for strange\.weight"):
        expand(names("huggingface", "tiny-griffin"), ["strange.weight"], "huggingface")


def test_two_parameters_never_get_one_name() -> None:
    with pytest.raises(CheckpointMismatch, match="one name"):
        expand((Rename("a", "x"), Rename("b", "x")), ["a", "b"], "test")


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_saved_model_loads_to_the_bit(form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = random_model().to(dtype)
    save_model(model, tmp_path / "m", form)
    loaded = load_model(tmp_path / "m")
    assert detect(tmp_path / "m") == form
    assert loaded.config == model.config == read_config(tmp_path / "m")
    assert_same_tensors(tensors(loaded), tensors(model))
    assert all(p.requires_grad and p.is_contiguous() for p in loaded.parameters())


@BOTH
def test_saving_what_was_loaded_gives_the_same_bytes(form: str, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "a", form)
    save_model(load_model(tmp_path / "a"), tmp_path / "b", form)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@BOTH
def test_sharded_and_whole_hold_the_same(form: str, tmp_path: Path) -> None:
    model = random_model()
    save_model(model, tmp_path / "m", form, max_shard_bytes=9_000)
    shards = sorted(path.name for path in (tmp_path / "m").glob("model-*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(p.nbytes for p in model.parameters())
    assert_same_tensors(tensors(load_model(tmp_path / "m")), tensors(model))


def test_our_files_are_read_by_the_safetensors_library(tmp_path: Path) -> None:
    model = random_model()
    save_model(model, tmp_path / "m")
    assert_same_tensors(load_file(tmp_path / "m" / "model.safetensors"), tensors(model))


def test_mixed_dtypes_are_kept_in_the_file_and_cast_to_the_embeddings_dtype(tmp_path: Path) -> None:
    model = random_model().bfloat16()
    for name, parameter in model.named_parameters():
        if name.endswith("Lambda"):
            parameter.data = parameter.data.double()
    save_model(model, tmp_path / "m")
    found = load_file(tmp_path / "m" / "model.safetensors")
    assert found["layers.0.mixer.cell.Lambda"].dtype == torch.float64
    assert {p.dtype for p in load_model(tmp_path / "m").parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fingerprint_is_that_of_the_file_whatever_format_and_dtype(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = random_model()
    known = model.origin.model()
    for form in FORMATS:
        save_model(model, tmp_path / form, form)
        assert load_model(tmp_path / form, dtype=dtype).origin.model() == known


def test_progress_counts_the_bytes_of_the_file_up_to_all_of_them(tmp_path: Path) -> None:
    model = random_model()
    save_model(model, tmp_path / "m")
    seen: list[tuple[int, int]] = []
    load_model(tmp_path / "m", progress=lambda done, total: seen.append((done, total)))
    done = [row[0] for row in seen]
    assert len(done) == len(tensors(model))
    assert done == sorted(set(done))
    assert {row[1] for row in seen} == {done[-1]} == {sum(p.nbytes for p in model.parameters())}


def test_a_setting_overruled_by_name_reaches_every_mixer_that_has_it(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m")
    loaded = load_model(tmp_path / "m", config={"window": 5, "logit_cap": 0.0})
    assert loaded.config.logit_cap == 0.0
    assert loaded.config.pattern[2] == replace(TINY.pattern[2], window=5)
    assert loaded.config.pattern[:2] == TINY.pattern[:2]


def test_a_whole_config_replaces_the_files(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m")
    other = replace(TINY, norm_eps=1e-5)
    assert load_model(tmp_path / "m", config=other).config == other
    with pytest.raises(CheckpointMismatch, match="not those of the model"):
        load_model(tmp_path / "m", config="tiny-hawk")


def test_an_unknown_setting_to_overrule_is_refused_by_name(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m")
    with pytest.raises(ConfigError, match="windw"):
        load_model(tmp_path / "m", config={"windw": 5})


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="griffin, huggingface"):
        save_model(random_model(), tmp_path / "m", "gguf")
    assert not (tmp_path / "m").exists()


def test_a_model_on_meta_has_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="meta"):
        save_model(griffin.build(TINY, device="meta"), tmp_path / "m")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (replace(TINY, scale_embeddings=False), "sqrt"),
        (griffin.PRESETS["tiny-griffin"], "sqrt"),
        (
            replace(
                TINY,
                pattern=(
                    RGLRU(width=32, heads=4),
                    LocalAttention(heads=2, head_dim=16, window=8),
                ),
            ),
            "4 gate blocks beside 2",
        ),
        (
            replace(TINY, pattern=(RGLRU(width=32, heads=2), RGLRU(width=64, heads=2))),
            "width",
        ),
    ],
)
def test_hugging_face_refuses_models_that_it_cannot_say(
    config: griffin.ModelConfig, why: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointMismatch, match=why):
        save_model(random_model(config), tmp_path / "m", "huggingface")
    assert not (tmp_path / "m").exists()


def test_the_card_is_the_one_given_or_says_what_the_folder_holds(tmp_path: Path) -> None:
    model = random_model()
    save_model(model, tmp_path / "a", card="# mine\n")
    save_model(model, tmp_path / "b")
    assert (tmp_path / "a" / "README.md").read_text() == "# mine\n"
    count = sum(p.numel() for p in model.parameters())
    assert f"{count:,} parameters in float32" in (tmp_path / "b" / "README.md").read_text()


# ---- nothing half-written takes the name


class DiskFills:
    """A tokenizer whose saving finds the disk full, after the weights were written."""

    bos_id = eos_id = pad_id = None
    stop_ids: tuple[int, ...] = ()

    def save(self, folder: Path, /) -> None:
        assert (folder / "config.json").exists()
        (folder / "tokenizer.model").write_bytes(b"half")
        raise OSError(28, "No space left on device")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_disk_that_fills_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(random_model(), tmp_path / "m", tokenizer=DiskFills())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_leaves_an_old_checkpoint_as_it_was(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="untouched"):
        save_model(random_model(seed=5), tmp_path / "m", tokenizer=DiskFills())
    assert contents(tmp_path) == before


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files of this process may not grow beyond 20 kB: writes fail as on a full disk."""
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_write_that_the_system_refuses_leaves_nothing(small_disk: None, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not save"):
        save_model(random_model(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_leaves_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="Input/output"):
        save_model(random_model(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_saving_over_another_checkpoint_leaves_none_of_its_weights(
    form: str, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    save_model(random_model(seed=3), folder, "huggingface", max_shard_bytes=9_000)
    (folder / "notes.txt").write_text("mine")
    model = random_model()
    save_model(model, folder, form)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "notes.txt"
    ]  # fmt: skip
    assert_same_tensors(tensors(load_model(folder)), tensors(model))


def test_a_save_cut_off_while_moving_in_leaves_nothing_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(random_model(), tmp_path / "m")
    moved: list[str] = []
    really = os.replace

    def once(old: Path, new: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(str(new))
        really(old, new)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        save_model(random_model(seed=5), tmp_path / "m")
    with pytest.raises(GriffinError, match=r"config\.json"):
        load_model(tmp_path / "m")


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("mine")
    with pytest.raises(CheckpointError, match="a file has that name"):
        save_model(random_model(), tmp_path / "m")
    assert (tmp_path / "m").read_text() == "mine"


KILLED = """
import os, signal, sys
import griffin_lm as griffin
from griffin_lm.checkpoints import save_model

really, calls, at = os.fsync, [], int(sys.argv[2])

def fatal(descriptor):
    calls.append(descriptor)
    if len(calls) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    really(descriptor)

os.fsync = fatal
save_model(griffin.build("tiny-griffin", seed=9), sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("exists", [False, True])
def test_a_process_killed_while_writing_leaves_what_was_there(
    at: int, exists: bool, tmp_path: Path
) -> None:
    import subprocess
    import sys

    folder = tmp_path / "m"
    if exists:
        save_model(random_model(), folder)
    run = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(at)], check=False)
    assert run.returncode == -9
    if exists:
        assert_same_tensors(tensors(load_model(folder)), tensors(random_model()))
    else:
        assert not folder.exists()
    save_model(random_model(seed=2), folder)
    assert_same_tensors(tensors(load_model(folder)), tensors(random_model(seed=2)))
