"""From every format to every other: the same bits, config, vocabulary, states and fingerprint."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

import griffin_lm as griffin
from griffin_lm.checkpoints import FORMATS, detect, load_model, read_config, save_model
from griffin_lm.text import Tokenizer
from tests.checkpoints.helpers import TINY, assert_same_tensors, random_model, tensors
from tests.parity import record_parity

pytest.importorskip("tensorstore")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PAIRS = list(product(FORMATS, FORMATS))
CONFIG = replace(TINY, vocab=2048)  # as many as the bundled vocabulary
Saved = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return griffin.load("fledgling").tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Saved:
    """A checkpoint of one random model, once in each format and dtype."""
    root = tmp_path_factory.mktemp("pairs")

    def write(form: str, dtype: str) -> Path:
        path = root / f"{form}-{dtype}"
        if not path.exists():
            model = random_model(CONFIG).to(DTYPES[dtype])
            save_model(model, path, form, tokenizer=tokenizer)
        return path

    return write


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((a.double() - other[name].double()).abs().max().item() for name, a in one.items())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("first", "then"), PAIRS, ids=lambda form: form)
def test_a_model_goes_from_each_format_to_each(
    first: str, then: str, dtype: str, saved: Saved, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    lm = griffin.load(saved(first, dtype), dtype=dtype)
    griffin.save(lm, tmp_path / "m", then)
    assert detect(tmp_path / "m") == then
    found = griffin.load(tmp_path / "m", dtype=dtype)
    reference = random_model(CONFIG).to(DTYPES[dtype])
    error = largest_difference(tensors(found.model), tensors(reference))
    record_parity(f"formats | {first} to {then} | {dtype}, every tensor", error, 0.0)
    assert_same_tensors(tensors(found.model), tensors(reference))
    assert found.config == CONFIG == read_config(tmp_path / "m")
    assert found.tokenizer.fingerprint == tokenizer.fingerprint
    assert found.model.origin.model() == lm.model.origin.model() == reference.origin.model()


@pytest.mark.parametrize(("first", "then"), PAIRS, ids=lambda form: form)
def test_a_state_saved_under_one_goes_on_under_the_other(
    first: str, then: str, saved: Saved, tmp_path: Path
) -> None:
    one = griffin.load(saved(first, "float32"), dtype="float32")
    other = griffin.load(saved(then, "float32"), dtype="float32")
    prompt, rest = torch.arange(30)[None], torch.arange(30, 35)[None]
    with torch.no_grad():
        _, state = one.model(prompt)
        state.save(tmp_path / "s.state")
        wanted, _ = one.model(rest, state=state)
        logits, _ = other.model(rest, state=griffin.State.load(tmp_path / "s.state", other))
    assert torch.equal(logits, wanted)


@pytest.mark.parametrize("form", ["griffin", "huggingface"])
@pytest.mark.parametrize("then", ["deepmind-torch", "deepmind-flax"])
def test_shards_become_one_checkpoint(form: str, then: str, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", form, max_shard_bytes=9_000)
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 2
    save_model(load_model(tmp_path / "m"), tmp_path / "n", then)
    assert_same_tensors(tensors(load_model(tmp_path / "n")), tensors(random_model()))


@pytest.mark.parametrize("form", FORMATS)
def test_the_fingerprint_does_not_depend_on_the_dtype_computed_in(form: str, saved: Saved) -> None:
    reference = random_model(CONFIG).bfloat16()
    for dtype in (torch.float32, torch.float16):
        loaded = load_model(saved(form, "bfloat16"), dtype=dtype)
        assert loaded.origin.model() == reference.origin.model()


@pytest.mark.parametrize("form", ["deepmind-torch", "deepmind-flax"])
def test_a_config_beside_it_or_the_one_that_fits_gives_the_same_fingerprint(
    form: str, tmp_path: Path
) -> None:
    model = griffin.build("fledgling", seed=7)
    save_model(model, tmp_path / "m", form)
    (tmp_path / "m" / "config.json").unlink()
    loaded = load_model(tmp_path / "m")
    assert loaded.origin.model() == model.origin.model()
