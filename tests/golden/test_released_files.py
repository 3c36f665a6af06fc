"""Files of every released version load for ever, and mean what they meant."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import griffin_lm as griffin
from griffin_lm.checkpoints import load_model
from griffin_lm.layers.quantized import KINDS, matrices

RELEASES = sorted((Path(__file__).parent / "data").glob("released-*"))
QUANTISED = Path(__file__).parent / "data" / "quantised"
TOKENS = torch.tensor([[5, 17, 80, 2, 33, 41, 7, 7, 90, 12, 64, 3]])
NEXT = torch.tensor([[11, 4, 59]])


def test_there_is_a_folder_of_the_current_minor_version():
    minor = griffin.__version__.rsplit(".", 1)[0]
    assert any(folder.name.startswith(f"released-{minor}") for folder in RELEASES)


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_its_checkpoint_gives_the_logits_of_its_day(folder):
    model = load_model(folder, dtype=torch.float32).requires_grad_(False)
    _, state = model(TOKENS)
    logits, _ = model(NEXT, state=state.with_pending([9]))
    expected = load_file(folder / "logits.safetensors")["logits"]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_its_state_is_continued(folder):
    model = load_model(folder).requires_grad_(False)
    state = griffin.State.load(folder / "session.state", model)
    assert state.tokens.tolist() == [TOKENS.shape[1] + 1] and state.pending.tolist() == [9]
    logits, _ = model(NEXT, state=state)
    expected = load_file(folder / "logits.safetensors")["logits"]
    # the state was made with bf16 weights: near the fp32 logits, no more
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_checkpoints_mean_what_they_meant(kind):
    """Made by tests/golden/quantised.py: rows of the dense matrices, logits computed with them."""
    model = load_model(QUANTISED / kind, dtype=torch.float32).requires_grad_(False)
    expected = load_file(QUANTISED / f"{kind}.safetensors")
    logits = expected.pop("logits")
    found = matrices(model)
    assert {f"dense.{name}" for name in found} == set(expected)
    for name, matrix in found.items():
        assert torch.equal(matrix.dense()[:4], expected[f"dense.{name}"]), name
    # the model rounds activations to 1/127 of the largest in their row
    error = (model(TOKENS)[0] - logits).norm() / logits.norm()
    assert error < 0.03
