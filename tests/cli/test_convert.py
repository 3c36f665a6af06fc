"""`griffin convert`: every format into every other, read back to the bit, nothing lost."""

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import FORMATS, detect, load_model, open_source, read_config
from griffin_lm.errors import CheckpointCorrupt, GriffinError
from griffin_lm.inference import LanguageModel
from griffin_lm.inference.converting import compare
from tests.checkpoints.helpers import TINY, assert_same_tensors, random_model, tensors

PAIRS = list(itertools.permutations(FORMATS, 2))


@pytest.fixture(scope="module")
def vocabulary() -> griffin.LanguageModel:
    return griffin.load("fledgling", device="cpu")


@pytest.fixture(scope="module")
def lm(vocabulary) -> LanguageModel:
    """Random bfloat16 weights that every format can hold, and a tokenizer; takes turns."""
    model = random_model(replace(TINY, vocab=2048)).to(torch.bfloat16)
    return LanguageModel(model, vocabulary.tokenizer, instruction_tuned=True)


@pytest.fixture(scope="module")
def sources(lm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The same model in every format that can be written here."""
    home, made = tmp_path_factory.mktemp("sources"), dict[str, Path]()
    for form in FORMATS:
        try:
            griffin.save(lm, home / form, format=form, card="# A card of my own\n")
        except GriffinError as error:
            made[form] = Path(f"cannot be written here: {error}")
        else:
            made[form] = home / form
    yield made


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=lambda name: name)
def test_every_format_converts_into_every_other(
    run, sources: dict[str, Path], lm, tmp_path: Path, a: str, b: str
) -> None:
    for form in (a, b):
        if not sources[form].exists():
            pytest.skip(f"{form} {sources[form]}")
    result = run("convert", sources[a], tmp_path / "b", "--format", b, "--json", tmp_path / "json")
    assert result.code == 0, result.err
    assert "read back and compared: the same bits" in result.out
    assert detect(tmp_path / "b") == b
    assert_same_tensors(tensors(load_model(tmp_path / "b")), tensors(lm.model))
    assert read_config(tmp_path / "b").identity() == lm.config.identity()
    loaded = griffin.load(tmp_path / "b", device="cpu", dtype="bfloat16")
    assert loaded.tokenizer.fingerprint == lm.tokenizer.fingerprint
    assert loaded.instruction_tuned
    assert loaded.model.origin.model() == lm.model.origin.model()
    assert (tmp_path / "b" / "README.md").read_text() == "# A card of my own\n"
    figures = json.loads((tmp_path / "json").read_text())
    assert (figures["source_format"], figures["format"]) == (a, b)
    assert figures["dtypes"] == ["bfloat16"] and figures["checked"]


@pytest.fixture(scope="module")
def source(sources: dict[str, Path]) -> Path:
    return sources["griffin"]


def test_the_dtype_stays_unless_another_is_asked_for(run, source: Path, lm, tmp_path) -> None:
    convert = ("convert", source, tmp_path / "wide", "--format", "huggingface")
    assert run(*convert, "--dtype", "float32").code == 0
    found = load_model(tmp_path / "wide")
    assert found.embed.weight.dtype == torch.float32
    assert_same_tensors(tensors(found), {k: v.float() for k, v in tensors(lm.model).items()})


def test_tensors_of_several_dtypes_keep_theirs(run, tmp_path: Path) -> None:
    model = random_model().to(torch.bfloat16)
    model.layers[0].mixer.cell.Lambda.data = model.layers[0].mixer.cell.Lambda.data.float()
    griffin.save(model, tmp_path / "a")
    assert run("convert", tmp_path / "a", tmp_path / "b", "--format", "huggingface").code == 0
    source = open_source(tmp_path / "b")
    name = next(name for name in source.shapes if "layers.0." in name and "recurrent_par" in name)
    kinds = {source.dtype(other) for other in source.shapes if other != name}
    assert source.dtype(name) == torch.float32 and kinds == {torch.bfloat16}


def test_the_bundled_model_converts_to_its_own_format_and_says_what_it_wrote(run, tmp_path) -> None:
    result = run("convert", "fledgling", tmp_path / "copy", "--format", "griffin")
    assert result.code == 0, result.err
    size = (tmp_path / "copy" / "model.safetensors").stat().st_size
    assert f"{size:>15,}  model.safetensors" in result.out
    assert "griffin to griffin: 1,174,656 parameters in bfloat16" in result.out
    a, b = griffin.load("fledgling", device="cpu"), griffin.load(tmp_path / "copy", device="cpu")
    assert_same_tensors(tensors(b.model), tensors(a.model))


def test_a_model_that_a_format_cannot_hold_is_refused_with_those_that_can(run, tmp_path) -> None:
    result = run("convert", "fledgling", tmp_path / "b", "--format", "huggingface")
    assert result.code == 1
    assert "always scales embeddings" in result.err
    assert "formats that can hold this model: griffin" in result.err
    assert not (tmp_path / "b").exists()


def test_a_target_in_use_is_refused_unless_overwritten(run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    convert = ("convert", source, target, "--format", "huggingface")
    refused = run(*convert)
    assert refused.code == 1 and "not empty" in refused.err and "--overwrite" in refused.err
    assert [file.name for file in target.iterdir()] == ["notes.txt"]
    assert run(*convert, "--overwrite").code == 0
    assert (target / "notes.txt").read_text() == "mine"
    assert detect(target) == "huggingface"


def test_an_empty_target_is_as_good_as_none(run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert run("convert", source, tmp_path / "b", "--format", "griffin").code == 0


def test_a_checkpoint_is_not_converted_onto_itself(run, source: Path) -> None:
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    result = run("convert", source, source, "--format", "huggingface", "--overwrite")
    assert result.code == 1 and "is the checkpoint to convert" in result.err
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before


def test_unknown_formats_are_refused(run, source: Path, tmp_path: Path) -> None:
    result = run("convert", source, tmp_path / "b", "--format", "gguf")
    assert result.code == 1 and "there are: griffin, huggingface" in result.err
    assert run("convert", source, tmp_path / "b").code == 2
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantised_weights_are_written_read_back_and_loaded(run, source, tmp_path, kind) -> None:
    convert = ("convert", source, tmp_path / "b", "--format", "griffin", "--quantize", kind)
    result = run(*convert)
    assert result.code == 0, result.err
    assert f", {kind}, " in result.out or f" {kind}, " in result.out
    assert "read back and compared: the same bits" in result.out
    saved, rounded = griffin.load(tmp_path / "b"), griffin.load(source, quantize=kind)
    assert saved.generate("ab", max_new_tokens=5).tokens == (
        rounded.generate("ab", max_new_tokens=5).tokens
    )
    again = run("convert", tmp_path / "b", tmp_path / "c", "--format", "griffin")
    assert again.code == 0, again.err
    weights = [(tmp_path / at / "model.safetensors").read_bytes() for at in "bc"]
    assert weights[0] == weights[1]


def test_what_would_round_twice_or_leave_our_format_is_refused(run, source, tmp_path) -> None:
    convert = ("convert", source, tmp_path / "b", "--format")
    refused = run(*convert, "huggingface", "--quantize", "int8")
    assert refused.code == 1 and "can't be saved as 'huggingface'" in refused.err
    assert not (tmp_path / "b").exists()
    assert run(*convert, "griffin", "--quantize", "int8").code == 0
    other = ("convert", tmp_path / "b", tmp_path / "c", "--format")
    refused = run(*other, "griffin", "--quantize", "int4")
    assert refused.code == 1 and "saved in int8" in refused.err
    refused = run(*other, "huggingface")
    assert refused.code == 1 and "weights in int8 can't be saved" in refused.err
    refused = run(*other, "griffin", "--adapter", source)
    assert refused.code == 1 and "rounding twice" in refused.err
    refused = run("verify", tmp_path / "b")
    assert refused.code == 1 and "is quantised" in refused.err
    assert not (tmp_path / "c").exists()


def test_weights_without_a_tokenizer_are_converted_without(run, tmp_path: Path) -> None:
    griffin.save(random_model(), tmp_path / "a")
    result = run("convert", tmp_path / "a", tmp_path / "b", "--format", "huggingface")
    assert result.code == 0 and "no tokenizer" in result.out


def test_a_made_card_is_made_anew(run, lm, tmp_path: Path) -> None:
    griffin.save(lm, tmp_path / "a")
    assert run("convert", tmp_path / "a", tmp_path / "b", "--format", "huggingface").code == 0
    assert 'in the format "huggingface"' in (tmp_path / "b" / "README.md").read_text()


def test_other_bits_than_were_written_are_found_when_reading_back(tmp_path: Path) -> None:
    model = random_model()
    griffin.save(model, tmp_path / "a")
    wanted = {name: parameter.detach for name, parameter in model.named_parameters()}
    compare(tmp_path / "a", wanted, model.config)
    rates = model.layers[1].mixer.cell.Lambda.detach().clone()
    rates[3] = torch.nextafter(rates[3], torch.tensor(9.0))
    wanted["layers.1.mixer.cell.Lambda"] = lambda: rates
    with pytest.raises(CheckpointCorrupt, match=r"layers\.1\.mixer\.cell\.Lambda"):
        compare(tmp_path / "a", wanted, model.config)
    with pytest.raises(CheckpointCorrupt, match="config"):
        compare(tmp_path / "a", wanted, replace(model.config, norm_eps=1e-5))


def test_a_disk_that_forgets_is_found(run, source: Path, tmp_path: Path, monkeypatch) -> None:
    from griffin_lm.inference import converting

    write = converting.save

    def forget(
        model: LanguageModel, path: Path, format: str, card: str | None, quantize: str | None
    ) -> None:
        write(model, path, format, card, quantize)
        file = path / "model.safetensors"
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(raw)

    monkeypatch.setattr(converting, "save", forget)
    convert = ("convert", source, tmp_path / "b", "--format", "huggingface")
    result = run(*convert)
    assert result.code == 1 and "other bits than were written" in result.err
    assert run(*convert, "--overwrite", "--no-check").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mapped_checkpoint_is_not_loaded_into_memory(tmp_path: Path) -> None:
    from griffin_lm.bench.full_size import AnonymousMemory
    from griffin_lm.inference.converting import borrowed

    model = random_model(replace(TINY, vocab=2**19))  # 80 MB
    size = sum(p.nbytes for p in model.parameters())
    griffin.save(model, tmp_path / "a")
    del model
    with AnonymousMemory() as before:
        pass
    with AnonymousMemory() as during:
        found = borrowed(tmp_path / "a")
    assert sum(p.nbytes for p in found.parameters()) == size
    assert during.peak - before.peak < size / 4
