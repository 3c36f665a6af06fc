"""Checkpoints with matrices in 8 and 4 bits: the same bits as rounding at load, or a refusal."""

import json
import random
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import load_model, save_model, saved_quantization
from griffin_lm.errors import CheckpointCorrupt, CheckpointError, ConfigError, GriffinError
from griffin_lm.layers.quantized import KINDS, matrices, quantize_weights, stored_tensors
from tests.checkpoints.helpers import (
    WEIGHTS,
    assert_same_tensors,
    edit_header,
    edit_json,
    random_model,
)
from tests.checkpoints.test_fuzz import damage

each_kind = pytest.mark.parametrize("kind", KINDS)
TOKENS = torch.tensor([[5, 17, 80, 2, 33, 41, 7]])
NAME = "layers.0.mlp.gate.weight"


def kept(model: griffin.Griffin) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in stored_tensors(model).items()}


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A quantised checkpoint."""
    save_model(random_model(), tmp_path / "m", quantize=request.param)
    return tmp_path / "m"


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("limit", [10**9, 9_000], ids=["whole", "shards"])
def test_it_loads_as_the_bits_of_rounding_at_load(tmp_path: Path, kind, dtype, limit) -> None:
    save_model(random_model(), tmp_path / "plain")
    rounded = load_model(tmp_path / "plain", dtype=dtype, quantize=kind)
    save_model(random_model(), tmp_path / "written", quantize=kind, max_shard_bytes=limit)
    save_model(rounded, tmp_path / "saved", max_shard_bytes=limit)
    for name in ("written", "saved"):
        loaded = load_model(tmp_path / name, dtype=dtype)
        assert_same_tensors(kept(loaded), kept(rounded))
        assert loaded.origin.model() == rounded.origin.model()
        with torch.no_grad():
            assert torch.equal(loaded(TOKENS)[0], rounded(TOKENS)[0])


@each_kind
def test_embedding_and_head_are_rounded_and_the_recurrence_is_not(tmp_path: Path, kind) -> None:
    config = griffin.PRESETS["tiny-griffin"]
    save_model(random_model(config), tmp_path / "m", quantize=kind)
    save_model(random_model(griffin.PRESETS["tiny-llama"]), tmp_path / "untied", quantize=kind)
    model = load_model(tmp_path / "m")
    assert "embed.weight" in matrices(model)
    plain = dict(model.named_parameters())
    for part in ("Lambda", "conv", "norm", "bias", "gate.w"):
        assert any(part in name for name in plain), part
    assert {tensor.dtype for tensor in plain.values()} == {torch.float32}
    if "head.weight" in dict(griffin.build("tiny-llama", device="meta").named_parameters()):
        assert "head.weight" in matrices(load_model(tmp_path / "untied"))


def test_a_mixed_model_is_saved_as_it_is(tmp_path: Path) -> None:
    model = random_model()
    quantize_weights(model.layers[0], "int8")
    quantize_weights(model.layers[1], "int4")
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert_same_tensors(kept(loaded), kept(model))
    with pytest.raises(ConfigError, match="int4 and int8"):
        load_model(tmp_path / "m", quantize="int8")


def test_a_state_goes_from_rounded_weights_to_those_they_were_rounded_from(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "plain")
    save_model(random_model(), tmp_path / "int4", quantize="int4")
    rounded, plain = load_model(tmp_path / "int4"), load_model(tmp_path / "plain")
    with torch.no_grad():
        _, state = rounded(TOKENS)
    state.save(tmp_path / "a.state")
    assert griffin.State.load(tmp_path / "a.state", plain).tokens.tolist() == [7]
    from safetensors import safe_open

    with safe_open(tmp_path / "a.state", "pt") as file:
        header = json.loads(file.metadata()["griffin"])
    assert header["quantization"] == "int4" and header["cache"] == "float32"


@pytest.mark.parametrize("form", ["huggingface", "deepmind-torch"])
def test_other_formats_have_no_words_for_it(folder: Path, tmp_path: Path, form: str) -> None:
    with pytest.raises(CheckpointError, match="rounded from"):
        save_model(load_model(folder), tmp_path / "other", form)
    assert not (tmp_path / "other").exists()


def test_it_is_not_rounded_again(folder: Path) -> None:
    quantization = saved_quantization(folder)
    assert quantization is not None
    (kind,) = set(quantization.kinds.values())
    (other,) = set(KINDS) - {kind}
    assert_same_tensors(kept(load_model(folder, quantize=kind)), kept(load_model(folder)))
    with pytest.raises(ConfigError, match=f"saved in {kind}"):
        load_model(folder, quantize=other)
    with pytest.raises(ConfigError, match=f"in {kind} already"):
        save_model(load_model(folder), folder.parent / "b", quantize=other)


# ---- damage


CONFIGS = {
    "a kind that is none": lambda q: q.update(int3=[NAME]),
    "a name twice": lambda q: next(v for v in q.values() if isinstance(v, list)).append(NAME),
    "no source": lambda q: q.pop("source"),
    "another source": lambda q: q.update(source="0" * 64),
    "a source of another kind": lambda q: q.update(source=[1]),
    "another dtype": lambda q: q.update(dtype="bfloat16"),
    "a dtype that is none": lambda q: q.update(dtype="float7"),
    "a number for a name": lambda q: q.update(int8=[7]),
    "a list in a list": lambda q: q.update(int8=[[NAME]]),
    "a text for a list": lambda q: q.update(int8=NAME),
    "a name of no weight": lambda q: q.update(int8=["layers.99.mlp.gate.weight"]),
    "a weight that is no matrix": lambda q: q.update(int8=["final_norm.scale"]),
    "nothing": lambda q: q.clear(),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_config_that_says_otherwise_is_refused(folder: Path, what: str) -> None:
    edit_json(folder / "config.json", lambda config: CONFIGS[what](config["quantization"]))
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


def test_a_config_without_the_word_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config.pop("quantization"))
    with pytest.raises(CheckpointError, match=str(folder)):
        load_model(folder)


def test_the_word_alone_makes_no_quantised_checkpoint(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m")
    save_model(random_model(), tmp_path / "q", quantize="int8")
    said = json.loads((tmp_path / "q" / "config.json").read_text())["quantization"]
    edit_json(tmp_path / "m" / "config.json", lambda config: config.update(quantization=said))
    with pytest.raises(CheckpointCorrupt, match="goes with quantised weights from 2 on"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("code", ["I8", "U8"])
def test_a_matrix_of_another_dtype_is_refused(folder: Path, code: str) -> None:
    """By its checksum, which knows the dtype; and by the dtype where that was mended."""

    def change(header):
        row = next(row for row in header.values() if row.get("dtype") in ("I8", "U8"))
        row["dtype"] = "U8" if row["dtype"] == "I8" else "I8"

    edit_header(folder / WEIGHTS, change)
    with pytest.raises(CheckpointCorrupt, match="dtype"):
        load_model(folder)


def test_a_later_version_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config.update(version=3))
    with pytest.raises(CheckpointError, match="upgrade"):
        load_model(folder)


def test_plain_checkpoints_keep_the_version_that_older_releases_read(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["version"] == 1


def test_integers_of_other_programs_are_refused(folder: Path) -> None:
    """A GPTQ or bitsandbytes file under Hugging Face's name for the model."""
    plain = {"model_type": "recurrent_gemma"}
    (folder / "config.json").write_text(json.dumps(plain))
    with pytest.raises(GriffinError):
        load_model(folder)


@pytest.mark.parametrize("seed", [7])
def test_whatever_happens_to_the_files_it_is_found(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    reference = kept(load_model(folder))
    good = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "README.md"}
    refusals = 0
    for _ in range(40):
        name = rng.choice(sorted(good))
        front = rng.choice([len(good[name]), min(len(good[name]), 900)])
        (folder / name).write_bytes(damage(good[name][:front], rng) + good[name][front:])
        try:
            loaded = load_model(folder)
        except GriffinError as error:
            refusals += 1
            assert str(folder) in str(error)
        else:
            assert_same_tensors(kept(loaded), reference)
        (folder / name).write_bytes(good[name])
    assert refusals > 27
