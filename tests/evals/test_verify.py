"""`verify`: what it says of sound models, and that every kind of fault fails the line meant for it.

A fault is put into the package or into loaded weights by hand; each case names the lines that must
fail and a line that must not, since a report in which everything fails says nothing.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import griffin_lm as griffin
from griffin_lm.errors import BackendUnavailable, CheckpointError, ConfigError
from griffin_lm.evals.verify import Report, verify
from griffin_lm.evals.verify import run as verify_run
from griffin_lm.inference import LanguageModel
from griffin_lm.layers import halves
from griffin_lm.mixers import RGLRU, LocalAttention, local_attention, recurrent_block, rg_lru
from griffin_lm.models import ModelConfig

BLOCKS, LOGITS = "each block = the paper's equations", "logits = the paper's equations"
WINDOW, THEIRS = "attention across its whole window", "difference to transformers"
BITS, SHUFFLED = "bits per byte of the passage", "shuffled words are worse"
CHUNKS, FORK = "cut into chunks = whole", "a fork leaves the state unchanged"
PACKED, FIRST = "packed documents = separate", "first 3 tokens of the next document"
RIGHT, FINGERPRINT = "right padding = none", "fingerprint of the model"


def results(report: Report) -> dict[str, str]:
    """Every line's result by its name."""
    return {line.name: line.result for section in report.sections for line in section.lines}


def tiny() -> ModelConfig:
    """As transformers has it, with fledgling's vocabulary; a window too long to be read past."""
    return ModelConfig(
        vocab=2048,
        width=32,
        mlp_width=48,
        layers=4,
        pattern=(
            RGLRU(width=48, heads=2),
            RGLRU(width=48, heads=2),
            LocalAttention(heads=2, head_dim=16, window=100),
        ),
        logit_cap=30.0,
        scale_embeddings=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model as Hugging Face has it, every weight of it."""
    model = griffin.build(tiny(), seed=5).requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1, generator=random)
    path = tmp_path_factory.mktemp("verify") / "model"
    vocabulary = griffin.load("fledgling", device="cpu").tokenizer
    griffin.save(LanguageModel(model, vocabulary), path, format="huggingface")
    return path


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Loading then spoils the model, as a reader with a fault would."""

    def spoil(change: Callable[[Any], None]) -> None:
        def load(*given: Any, **options: Any) -> LanguageModel:
            lm = griffin.load(*given, **options)
            with torch.no_grad():
                change(lm.model)
            return lm

        monkeypatch.setattr(verify_run, "load", load)

    return spoil


@pytest.fixture
def modules_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module is called, and one operation after another: whatever takes several at once
    would pass by the faults that are planted in them."""
    monkeypatch.setattr(halves, "described", lambda *_: None)
    monkeypatch.setattr(rg_lru.RGLRUBlock, "recurrence", recurrent_block.RecurrentBlock.recurrence)


def test_the_bundled_model_passes_every_line() -> None:
    report = verify("fledgling", device="cpu", dtype="float32")
    found = results(report)
    assert not report.failed, report.verdict
    assert found[BITS] == found[FINGERPRINT] == found[WINDOW] == "PASS"
    assert found[THEIRS] == ("PASS" if has_transformers() else "not done")
    assert report.verdict.startswith("PASS: ")


def test_the_bundled_model_passes_in_bfloat16_too() -> None:
    report = verify("fledgling", device="cpu", dtype="bfloat16")
    assert not report.failed, report.to_markdown()
    assert "bfloat16 (asked)" in report.to_markdown()


def test_random_weights_pass_but_for_language(folder: Path) -> None:
    report = verify(folder, device="cpu", dtype="float32")
    assert [line.name for line in report.failed] == [SHUFFLED]
    assert results(report)[BITS] == "info", "nothing is claimed about a model not measured here"
    if has_transformers():
        assert results(report)[THEIRS] == "PASS"


def test_random_weights_of_a_preset_are_made_read_and_passed() -> None:
    report = verify("fledgling", random=True, device="cpu", dtype="bfloat16", long=True)
    assert not report.failed, report.to_markdown()
    assert results(report)[BITS] == results(report)[SHUFFLED] == "not done"
    assert results(report)["read past the whole window"] == "PASS"


def test_a_preset_without_room_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocabulary of 96"):
        verify("tiny-griffin", random=True)


def test_a_model_without_attention_says_what_it_was_not_asked(tmp_path: Path) -> None:
    config = replace(griffin.PRESETS["tiny-hawk"], vocab=2048)
    vocabulary = griffin.load("fledgling", device="cpu").tokenizer
    griffin.save(LanguageModel(griffin.build(config), vocabulary), tmp_path / "hawk")
    found = results(verify(tmp_path / "hawk", device="cpu", dtype="float32", long=True))
    assert found[WINDOW] == found["read past the whole window"] == "not done"
    assert found[CHUNKS] == found[BLOCKS] == "PASS"


@pytest.mark.parametrize("preset", ["tiny-mqa", "tiny-mamba", "tiny-lru"])
def test_models_that_have_no_equations_here_are_held_to_the_rest(
    preset: str, tmp_path: Path
) -> None:
    model = griffin.build(replace(griffin.PRESETS[preset], vocab=2048))
    vocabulary = griffin.load("fledgling", device="cpu").tokenizer
    griffin.save(LanguageModel(model, vocabulary), tmp_path / "model")
    report = verify(tmp_path / "model", device="cpu", dtype="float32")
    assert [line.name for line in report.failed] == [SHUFFLED]
    assert results(report)[BLOCKS] == results(report)[LOGITS] == "not done"


@pytest.mark.usefixtures("modules_only")
def test_a_window_off_by_one_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = local_attention.windowed_attention

    def short(q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, *rest: Any) -> Tensor:
        *rest, reach = rest
        assert reach is None
        window = torch.full((len(q),), ring_k.shape[1] - 1)
        return right(q, k, v, ring_k, *rest, window)

    monkeypatch.setattr(local_attention, "windowed_attention", short)
    report = verify(folder, device="cpu", dtype="float32")
    fails(report, WINDOW, BLOCKS, LOGITS, *([THEIRS] if has_transformers() else []))
    assert results(report)[CHUNKS] == "PASS", "it is off by one in every way of reading"


@pytest.mark.usefixtures("modules_only")
def test_flipped_taps_of_the_conv_are_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = recurrent_block.causal_conv

    def flipped(x: Tensor, past: Tensor, w: Tensor, *rest: Any) -> Tensor:
        return right(x, past, w.flip(0), *rest)

    monkeypatch.setattr(recurrent_block, "causal_conv", flipped)
    report = verify(folder, device="cpu", dtype="float32")
    fails(report, BLOCKS, LOGITS)
    assert results(report)[WINDOW] == "PASS"


@pytest.mark.usefixtures("modules_only")
def test_taps_that_reach_into_the_document_before_are_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = recurrent_block.causal_conv

    def leaking(x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor) -> Tensor:
        return right(x, past, w, b, torch.full_like(position, 1000))

    monkeypatch.setattr(recurrent_block, "causal_conv", leaking)
    report = verify(folder, device="cpu", dtype="float32")
    fails(report, PACKED, FIRST)
    assert results(report)[CHUNKS] == "PASS"


@pytest.mark.usefixtures("modules_only")
def test_padding_that_enters_the_state_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = recurrent_block.last_inputs

    def raw(x: Tensor, past: Tensor, _: Tensor | None) -> Tensor:
        return right(x, past, None)

    monkeypatch.setattr(recurrent_block, "last_inputs", raw)
    report = verify(folder, device="cpu", dtype="float32")
    fails(report, RIGHT)
    assert results(report)[CHUNKS] == results(report)[BLOCKS] == "PASS"


@pytest.mark.usefixtures("modules_only")
def test_a_state_written_in_place_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = local_attention.write_ring

    def in_place(ring: Tensor, new: Tensor, read: Tensor, count: Tensor, _: bool) -> Tensor:
        return right(ring, new, read, count, True)

    monkeypatch.setattr(local_attention, "write_ring", in_place)
    report = verify(folder, device="cpu", dtype="float32")
    fails(report, FORK)
    assert results(report)[BLOCKS] == "PASS"


def test_a_transposed_tensor_is_seen_where_the_model_is_known(spoilt: Any) -> None:
    def transpose(model: Any) -> None:
        weight = model.layers[0].mixer.linear_x.weight
        weight.copy_(weight.T.clone())

    spoilt(transpose)
    report = verify("fledgling", device="cpu", dtype="float32")
    fails(report, FINGERPRINT, BITS)
    assert results(report)[BLOCKS] == "PASS", "these weights too are computed rightly"


def test_swapped_tensors_are_seen_by_transformers(folder: Path, spoilt: Any) -> None:
    pytest.importorskip("transformers")

    def swap(model: Any) -> None:
        mlp = model.layers[1].mlp
        gate = mlp.gate.weight.clone()
        mlp.gate.weight.copy_(mlp.up.weight)
        mlp.up.weight.copy_(gate)

    spoilt(swap)
    report = verify(folder, device="cpu", dtype="float32")
    fails(report, THEIRS)
    assert results(report)[BLOCKS] == results(report)[CHUNKS] == "PASS"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda model: model.layers[2].mixer.q.weight[3].fill_(torch.nan), "every value is finite"),
        (lambda model: model.layers[2].mixer.q.weight.zero_(), "no weight is all zero"),
        (lambda model: model.layers[0].mixer.cell.Lambda.neg_(), "decays are plausible"),
    ],
    ids=["NaN", "zeros", "Lambda's sign"],
)
def test_odd_values_are_seen(folder: Path, spoilt: Any, change: Any, line: str) -> None:
    def all_of_them(model: Any) -> None:
        change(model)
        if line.startswith("decays"):
            for layer in (1, 3):
                model.layers[layer].mixer.cell.Lambda.neg_()

    spoilt(all_of_them)
    report = verify(folder, device="cpu", dtype="float32")
    fails(report, line)
    assert results(report)["round trip"] == "PASS"


def test_an_error_on_the_way_is_a_line_and_the_rest_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise griffin.GriffinError("the disk is full")

    monkeypatch.setattr(griffin.State, "save", broken)
    report = verify(folder, device="cpu", dtype="float32")
    stopped = next(line for line in report.failed if line.name.endswith("stopped"))
    assert "the disk is full" in stopped.note
    assert results(report)[BLOCKS] == "PASS"


@pytest.mark.parametrize(("kernels", "dtype"), [("reference", "float32"), ("native", "bfloat16")])
def test_the_kernels_asked_for_are_those_verified(folder: Path, kernels: str, dtype: str) -> None:
    try:
        report = verify(folder, device="cpu", dtype=dtype, kernels=kernels)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    assert [line.name for line in report.failed] == [SHUFFLED]
    assert report.facts["kernels"] == kernels


def test_a_damaged_file_is_refused_before_any_line(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        verify(tmp_path)


def test_other_settings_than_the_presets_are_named(folder: Path) -> None:
    report = verify("fledgling", device="cpu", dtype="float32", config={"window": 32})
    lines = {line.name: line for section in report.sections for line in section.lines}
    assert (
        "the sizes of fledgling, but other settings: pattern" in lines["count of the preset"].note
    )


def test_the_page_lists_every_file_with_its_hash(folder: Path) -> None:
    import hashlib

    report = verify(folder, device="cpu", dtype="float32")
    page = report.to_markdown()
    for name in ("model.safetensors", "config.json", "tokenizer.model"):
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() in page
    assert all(line.count("|") >= 3 for line in page.splitlines() if line.startswith("|"))


def fails(report: Report, *names: str) -> None:
    """Every one of these lines failed."""
    found = results(report)
    assert {name: found[name] for name in names} == dict.fromkeys(names, "FAIL")


def has_transformers() -> bool:
    """The dev extra brings it; the package does without."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True
