"""QLoRA on a base that was saved in 4 or 8 bits: what is served is what was trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import CheckpointError, CheckpointMismatch, ConfigError
from griffin_lm.inference.converting import convert
from griffin_lm.layers.quantized import matrices
from griffin_lm.training.finetuning import lora
from griffin_lm.training.finetuning.config import FinetuneConfig
from griffin_lm.training.finetuning.run import Prepared

Begin = Callable[..., Prepared]


@pytest.fixture(params=["int8", "int4"])
def base(request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path: Path) -> Path:
    convert(folders["tiny-griffin"], tmp_path / "base", "griffin", quantize=request.param)
    return tmp_path / "base"


def test_the_adapter_stands_beside_the_rounded_weights(
    base: Path, begin: Begin, small: FinetuneConfig, tmp_path: Path
):
    run = begin(replace(small, gates=True), folder=base)
    assert run.targets is not None
    model = run.base.lm.model
    torch.manual_seed(7)
    with torch.no_grad():
        for _, b in lora.factors(run.tuner.learned(), run.targets).values():
            b.normal_(std=0.1)
    (folder,) = run.finish(merge=False)
    served = griffin.load(base, dtype="float32", adapter=folder)
    bare = griffin.load(base, dtype="float32")
    tokens = torch.randint(0, model.config.vocab, (2, 20))
    with torch.no_grad():
        trained, answer, plain = (m(tokens)[0] for m in (model, served.model, bare.model))
    # activations are rounded to int8, so a last bit of fp32 moves now and then a whole step
    assert (trained - answer).norm() / trained.norm() < 5e-3
    assert (plain - answer).norm() / trained.norm() > 0.1
    assert served.model.origin.model() != bare.model.origin.model()
    adapted = [m for m in matrices(served.model).values() if m.added is not None]
    assert len(adapted) == sum(name.endswith(".weight") for name in run.targets.adapted)
    with pytest.raises(CheckpointError, match="has no place"):
        griffin.save(served, tmp_path / "out")
    with pytest.raises(CheckpointMismatch, match="rounding twice"):
        run.finish(merge=True)


def test_it_fits_the_weights_that_the_base_was_rounded_from(
    base: Path, begin: Begin, small: FinetuneConfig, folders: dict[str, Path]
):
    (folder,) = begin(small, folder=base).finish(merge=False)
    assert griffin.load(folders["tiny-griffin"], adapter=folder)
    with pytest.raises(CheckpointError):
        griffin.load(folders["tiny-llama"], adapter=folder)


def test_its_own_weights_are_not_trained(base: Path, begin: Begin, small: FinetuneConfig):
    with pytest.raises(ConfigError, match="rounded weights are frozen"):
        begin(small, folder=base, adapter=False)
    losses = []
    run = begin(replace(small, steps=12, rank=8, peak_rate=3e-2), folder=base)
    for _ in range(12):
        losses.append(run.tuner.step().loss)
    assert losses[-1] < losses[0] - 0.2


def test_the_dense_matrix_and_its_rows_have_the_adapter_in_them(base: Path):
    matrix = matrices(griffin.load(base, dtype="float32").model)["embed.weight"]
    before = matrix.dense()
    rows, columns = matrix.shape
    matrix.add(torch.randn(2, columns), torch.randn(rows, 2))
    assert matrix.added is not None
    change = matrix.added[1] @ matrix.added[0]
    torch.testing.assert_close(matrix.dense(), before + change)
    index = torch.tensor([[0, rows - 1, 3]])
    torch.testing.assert_close(matrix.rows(index), matrix.dense()[index])
