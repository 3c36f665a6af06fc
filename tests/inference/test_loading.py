"""`load` and `save`: what comes back is what was saved, and each refusal names the way on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import (
    BackendUnavailable,
    CheckpointNotFound,
    ConfigError,
    InputError,
    TokenizerError,
)
from griffin_lm.inference import LanguageModel, loading
from griffin_lm.models import State
from griffin_lm.ops import native


@pytest.fixture(scope="module")
def folder(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "tiny"
    griffin.save(lm, path)
    return path


@pytest.mark.parametrize("format", ["griffin", "huggingface"])
def test_what_was_saved_says_the_same_when_loaded(lm, tmp_path, format: str) -> None:
    # as Hugging Face's format has it: scaled embeddings, as many gate blocks as attention heads
    recurrent, _, attention = lm.config.pattern
    pattern = (replace(recurrent, heads=2), replace(recurrent, heads=2), attention)
    config = replace(lm.config, scale_embeddings=True, pattern=pattern)
    lm = LanguageModel(griffin.build(config, seed=3), lm.tokenizer)
    griffin.save(lm, tmp_path / "m", format=format)
    again = griffin.load(tmp_path / "m", dtype="float32", device="cpu")
    assert again.tokenizer.fingerprint == lm.tokenizer.fingerprint
    assert again.generate("The wind", max_new_tokens=9).tokens == (
        lm.generate("The wind", max_new_tokens=9).tokens
    )


def test_a_state_fits_the_same_weights_from_a_file(lm, folder: Path, tmp_path: Path) -> None:
    lm.generate("The wind", max_new_tokens=4).state.save(tmp_path / "state")
    again = griffin.load(folder, dtype="float32", device="cpu")
    assert again.generate("", state=State.load(tmp_path / "state", again), max_new_tokens=5).tokens


def test_a_model_without_a_tokenizer_can_be_saved(lm, tmp_path: Path) -> None:
    griffin.save(lm.model, tmp_path / "bare")
    with pytest.raises(TokenizerError, match="no tokenizer"):
        griffin.load(tmp_path / "bare")
    loaded = griffin.load(tmp_path / "bare", tokenizer=lm.tokenizer)
    assert loaded.tokenizer is lm.tokenizer


def test_the_dtype_is_as_asked_and_auto_follows_the_device(folder: Path, monkeypatch) -> None:
    for name in ("float32", "bfloat16", "torch.bfloat16"):
        weight = griffin.load(folder, dtype=name, device="cpu").model.embed.weight
        assert str(weight.dtype).removeprefix("torch.") == name.removeprefix("torch.")
    for computes, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "computes_in_bfloat16", lambda device, yes=computes: yes)
        assert griffin.load(folder, device="cpu").model.embed.weight.dtype == expected


def test_settings_of_the_config_can_be_overruled(folder: Path) -> None:
    assert griffin.load(folder, config={"logit_cap": 5.0}).config.logit_cap == 5.0


def test_progress_is_told_in_bytes_up_to_the_end(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    griffin.load(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] > 0


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(lm, tmp_path: Path) -> None:
    small = griffin.build(replace(lm.config, vocab=100))
    with pytest.raises(TokenizerError, match="384 ids and the model only 100"):
        LanguageModel(small, lm.tokenizer)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("recurrentgemma-2b", CheckpointNotFound, "hf download google/recurrentgemma-2b"),
        ("someone/some-model", CheckpointNotFound, "hf download someone/some-model"),
        ("griffin-100m", CheckpointNotFound, "griffin.build"),
        ("./nowhere/at-all", CheckpointNotFound, "nothing at"),
        ("nowhere", CheckpointNotFound, "fledgling"),
    ],
)
def test_a_source_that_is_not_here_is_answered_with_the_way_on(source, error, words) -> None:
    with pytest.raises(error, match=words):
        griffin.load(source)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"quantize": "int3"}, ConfigError, "int8, int4"),
        ({"kernels": "triton"}, BackendUnavailable, "Triton"),
        ({"kernels": "fast"}, ConfigError, "reference"),
        ({"device": "cuda:99"}, InputError, "griffin doctor"),
        ({"dtype": "int8"}, InputError, "bfloat16"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_met_is_refused(folder: Path, options, error, words) -> None:
    with pytest.raises(error, match=words):
        griffin.load(folder, **options)


def test_naming_the_reference_kernels_is_fine(folder: Path) -> None:
    assert griffin.load(folder, kernels="reference").generate("x", max_new_tokens=1).tokens


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantised_weights_generate_and_belong_to_the_weights_they_were(folder, kind):
    lm = griffin.load(folder, quantize=kind, device="cpu")
    plain = griffin.load(folder, device="cpu")
    assert lm.generate("x", max_new_tokens=4).tokens
    assert lm.model.embed.weight.nbytes < plain.model.embed.weight.nbytes
    # a state belongs to the source weights, whatever they were rounded to
    assert lm.model.origin.model() == plain.model.origin.model()


@pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
def test_named_kernels_serve_or_say_why_not(folder):
    lm = griffin.load(folder, kernels="native", dtype="bfloat16", device="cpu")
    assert lm.generate("x", max_new_tokens=4).tokens
    wide = griffin.load(folder, kernels="native", dtype="float32", device="cpu")
    assert wide.generate("x", max_new_tokens=4).tokens
    halved = griffin.load(folder, kernels="native", dtype="float16", device="cpu")
    with pytest.raises(BackendUnavailable):
        halved.generate("x", max_new_tokens=1)


def test_without_the_compiled_library_native_kernels_are_refused(folder, monkeypatch):
    monkeypatch.setitem(loading.BACKENDS, "native", "not built")
    with pytest.raises(BackendUnavailable, match="not built"):
        griffin.load(folder, kernels="native")
