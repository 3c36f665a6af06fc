"""A model whose int4 weights are fitted to a text: nearer to itself, as large, and saved alike."""

from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import ConfigError, InputError
from griffin_lm.inference.calibration import calibrate, own_text, text_of
from griffin_lm.inference.converting import convert
from griffin_lm.inference.loading import BUNDLED
from griffin_lm.layers.quantized import matrices, quantize_weights, stored_tensors
from griffin_lm.models import PRESETS, build
from griffin_lm.text import load_tokenizer

TINY = sorted(name for name in PRESETS if name.startswith("tiny-"))


def tokens(model: griffin.Griffin, rows: int = 4, length: int = 64) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(model.config.vocab, (rows, length), generator=random)


@pytest.fixture(scope="module")
def fledgling() -> griffin.LanguageModel:
    return griffin.load("fledgling", device="cpu", dtype="float32")


@torch.no_grad()
def off(lm: griffin.LanguageModel, model: griffin.Griffin, text: torch.Tensor) -> float:
    """How far a model's distributions are from lm's: the mean Kullback-Leibler divergence."""
    true = lm.model(text)[0].log_softmax(-1)
    found = model(text)[0].log_softmax(-1)
    return float((true.exp() * (true - found)).sum(-1).mean())


def test_fledgling_is_nearer_to_itself_than_rounded_to_nearest(
    fledgling: griffin.LanguageModel,
) -> None:
    book = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")
    unseen = torch.tensor([fledgling.tokenizer.encode(book[20_000:32_000], bos=True)])
    nearest = griffin.load("fledgling", device="cpu", dtype="float32", quantize="int4").model
    fitted = griffin.load("fledgling", device="cpu", dtype="float32").model
    calibrate(fitted, own_text(fledgling.model, fledgling.tokenizer, rows=8, length=512))
    assert off(fledgling, fitted, unseen) < 0.9 * off(fledgling, nearest, unseen)


@pytest.mark.parametrize("preset", TINY)
def test_every_architecture_is_rounded_like_any_int4_model(preset: str, tmp_path: Path) -> None:
    model, nearest = build(preset, seed=3), build(preset, seed=3)
    source = model.origin.model()
    calibrate(model, tokens(model))
    quantize_weights(nearest, "int4")
    shapes = {name: (t.shape, t.dtype) for name, t in stored_tensors(nearest).items()}
    assert {name: (t.shape, t.dtype) for name, t in stored_tensors(model).items()} == shapes
    assert model.origin.model() == source
    griffin.save(model, tmp_path / "m")
    again = griffin.checkpoints.load_model(tmp_path / "m")
    for name, tensor in stored_tensors(again).items():
        assert torch.equal(tensor, stored_tensors(model)[name]), name
    text = tokens(model, 2, 20)
    with torch.no_grad():
        assert torch.equal(again(text)[0], model(text)[0])


def test_blocks_are_fitted_to_what_the_rounded_ones_before_them_give() -> None:
    model, seen = build("tiny-griffin", seed=3), []
    text = tokens(model)
    calibrate(model, text)
    block = model.blocks[1]
    hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    with torch.no_grad():
        model(text)
    hook.remove()
    plain = build("tiny-griffin", seed=3)
    shown = []
    hook = plain.blocks[1].register_forward_pre_hook(lambda _, args: shown.append(args[0].clone()))
    calibrate(plain, text)
    hook.remove()
    assert torch.equal(seen[0], shown[-1])


def test_the_model_writes_the_same_text_for_a_seed(fledgling: griffin.LanguageModel) -> None:
    texts = [own_text(fledgling.model, fledgling.tokenizer, s, rows=2, length=8) for s in (0, 0, 1)]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
    assert texts[0].shape == (2, 8)
    assert not torch.isin(texts[0], torch.tensor(fledgling.tokenizer.stop_ids)).any()


def test_a_file_is_cut_into_rows_that_begin_with_bos(
    fledgling: griffin.LanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_text("It was the best of times. " * 50, encoding="utf-8")
    rows = text_of(tmp_path / "t.txt", fledgling.tokenizer, rows=3, length=16)
    assert rows.shape == (3, 16)
    assert (rows[:, 0] == fledgling.tokenizer.bos_id).all()
    assert fledgling.tokenizer.decode(rows[:, 1:].flatten().tolist()).startswith("It was the best")


def test_converting_writes_what_calibrating_made(tmp_path: Path) -> None:
    source = BUNDLED["fledgling"]
    (tmp_path / "t.txt").write_text("It was the worst of times. " * 300, encoding="utf-8")
    done = convert(source, tmp_path / "m", "griffin", quantize="int4", calibrate=tmp_path / "t.txt")
    assert done.checked
    lm = griffin.load(tmp_path / "m", device="cpu")
    made = griffin.checkpoints.load_model(source)
    calibrate(made, text_of(tmp_path / "t.txt", load_tokenizer(source)))
    for name, tensor in stored_tensors(made).items():
        assert torch.equal(tensor, stored_tensors(lm.model)[name]), name
    assert lm.generate("It was", max_new_tokens=3).text


def test_what_cannot_be_calibrated_is_refused(
    fledgling: griffin.LanguageModel, tmp_path: Path
) -> None:
    model = build("tiny-griffin", seed=3)
    with pytest.raises(InputError, match="no text"):
        calibrate(model, torch.zeros(1, 0, dtype=torch.int64))
    assert not matrices(model)
    quantize_weights(model, "int8")
    with pytest.raises(InputError, match="rounded already"):
        calibrate(model, tokens(model))
    (tmp_path / "short.txt").write_text("Call me Ishmael.", encoding="utf-8")
    with pytest.raises(InputError, match="needed at least"):
        text_of(tmp_path / "short.txt", fledgling.tokenizer)
    with pytest.raises(InputError, match="can't be read"):
        text_of(tmp_path / "none.txt", fledgling.tokenizer)
    with pytest.raises(ConfigError, match="quantize='int4'"):
        convert(BUNDLED["fledgling"], tmp_path / "m", "griffin", quantize="int8", calibrate="own")
    assert not (tmp_path / "m").exists()
