"""Our logits against those that DeepMind's package computed once, on tiny random models.

The data is made by tests/golden/deepmind.py, which says what is in it and where it comes from. The
names are translated here by hand, so that a slip in the package's own tables would show.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import Griffin, ModelConfig
from tests.parity import record_parity

TOLERANCE = 2e-5
DATA = Path(__file__).parent / "data"
MODELS = ("recurrentgemma", "griffin", "narrow-recurrence", "hawk", "attention")
CASES = (
    "long",
    "packed",
    "packed-ends-long",
    "left-padded",
    "steps-from-one",
    "steps-before-window",
    "steps-at-window",
    "steps-after-window",
    "steps-far-beyond",
)

# Theirs to ours, longest first where one contains another; ffw_up is two matrices and stands alone.
WORDS = (
    ("embedder.input_embedding", "embed.weight"),
    ("blocks.", "layers."),
    ("temporal_pre_norm", "mixer_norm"),
    ("channel_pre_norm", "mlp_norm"),
    ("recurrent_block.rg_lru.a_param", "mixer.cell.Lambda"),
    ("recurrent_block.rg_lru.input_gate", "mixer.cell.x_gate"),
    ("recurrent_block.rg_lru.a_gate", "mixer.cell.a_gate"),
    ("recurrent_block.conv_1d", "mixer.conv"),
    ("recurrent_block", "mixer"),
    ("attention_block.proj_final", "mixer.out"),
    ("attention_block.proj_", "mixer."),
    ("mlp_block.ffw_down", "mlp.down"),
)


class Golden(NamedTuple):
    """A batch as their model read it; see deepmind.py."""

    tokens: Tensor
    segment_pos: Tensor
    prompt: int
    logits: Tensor


def our_config(theirs: dict[str, Any]) -> ModelConfig:
    """The configuration that deepmind.py describes."""
    mixers = {
        "R": RGLRU(width=theirs["lru_width"], heads=theirs["heads"]),
        "A": LocalAttention(
            heads=theirs["heads"],
            head_dim=theirs["width"] // theirs["heads"],
            window=theirs["window"],
        ),
    }
    return ModelConfig(
        vocab=theirs["vocab"],
        width=theirs["width"],
        mlp_width=theirs["mlp_width"],
        layers=len(theirs["pattern"]),
        pattern=tuple(mixers[letter] for letter in theirs["pattern"]),
        logit_cap=theirs["cap"],
        scale_embeddings=theirs["scaled"],
    )


def our_weights(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """One of their weights by our name, or two: ffw_up holds gate and up."""
    for theirs, ours in WORDS:
        name = name.replace(theirs, ours)
    if ".mlp_block.ffw_up." not in name:
        yield name, value
        return
    stem, kind = name.split("mlp_block.ffw_up.")
    for half, ours in zip(value, ("gate", "up"), strict=True):
        yield (
            (f"{stem}mlp.{ours}.weight", half.T)
            if kind == "w"
            else (f"{stem}mlp.{ours}.bias", half[0, 0])
        )


@cache
def golden(name: str) -> tuple[Griffin, dict[str, Golden]]:
    """Our model with their weights, and what theirs made of each batch."""
    with np.load(DATA / f"deepmind-{name}.npz") as file:
        stored = {key: file[key] for key in file.files}
    model = Griffin(our_config(json.loads(str(stored["config"]))))
    weights = [
        pair
        for key, value in stored.items()
        if key.startswith("weights/")
        for pair in our_weights(key.removeprefix("weights/"), torch.tensor(value))
    ]
    assert len(dict(weights)) == len(weights), "two of their weights go by one of our names"
    model.load_state_dict(dict(weights), strict=True)
    found = {key.split("/")[0] for key in stored} - {"weights", "config", "about"}
    assert found == set(CASES)
    return model, {
        case: Golden(
            torch.tensor(stored[f"{case}/tokens"]),
            torch.tensor(stored[f"{case}/segment_pos"]),
            int(stored[f"{case}/prompt"]),
            torch.tensor(stored[f"{case}/logits"]),
        )
        for case in CASES
    }


@torch.no_grad()
def ours(model: Griffin, batch: Golden, cuts: list[int]) -> Tensor:
    """Our logits (B, T, V) of the whole batch, read in calls that end at `cuts`."""
    pieces, state = [], None
    for begin, end in zip([0, *cuts[:-1]], cuts, strict=True):
        positions = batch.segment_pos[:, begin:end]
        logits, state = model(
            batch.tokens[:, begin:end], starts=positions == 0, valid=positions >= 0, state=state
        )
        pieces.append(logits)
    return torch.cat(pieces, dim=1)


def largest_difference(logits: Tensor, batch: Golden) -> float:
    """Over every valid token; no batch is all padding."""
    valid = batch.segment_pos >= 0
    assert valid.any(dim=1).all()
    return (logits - batch.logits)[valid].abs().max().item()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_deepminds_in_the_calls_they_made(name: str, case: str) -> None:
    model, batches = golden(name)
    batch = batches[case]
    length = batch.tokens.shape[1]
    logits = ours(model, batch, [batch.prompt, *range(batch.prompt + 1, length + 1)])
    error = largest_difference(logits, batch)
    steps = f", {length - batch.prompt} steps" if length > batch.prompt else ""
    record_parity(f"DeepMind | {name} | {case}{steps}", error, TOLERANCE)


@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize("case", ["packed", "left-padded", "steps-far-beyond"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_deepminds_in_calls_they_cannot_make(name: str, case: str, piece: int) -> None:
    """Their cache takes one token at a time, and no state may begin on padding; ours may be cut."""
    model, batches = golden(name)
    batch = batches[case]
    length = batch.tokens.shape[1]
    logits = ours(model, batch, [*range(piece, length, piece), length])
    error = largest_difference(logits, batch)
    cut = "in one call" if piece >= length else f"in calls of {piece}"
    record_parity(f"DeepMind | {name} | {case}, {cut}", error, TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_left_padding_needs_no_start_since_a_first_token_is_one(name: str) -> None:
    model, batches = golden(name)
    batch = batches["left-padded"]
    with torch.no_grad():
        logits, _ = model(batch.tokens, valid=batch.segment_pos >= 0)
    error = largest_difference(logits, batch)
    record_parity(f"DeepMind | {name} | left-padded, no starts given", error, TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_the_data_would_show_a_weight_left_out(name: str) -> None:
    """Golden data that a broken model also matches would prove nothing."""
    model, batches = golden(name)
    long, whole = batches["long"], [20]
    first = (slice(1), slice(*whole))  # enough of it, beyond every window here
    batch = Golden(long.tokens[first], long.segment_pos[first], 20, long.logits[first])
    with torch.no_grad():
        for key, weight in model.named_parameters():
            kept = weight.clone()
            weight.zero_()
            error = largest_difference(ours(model, batch, whole), batch)
            weight.copy_(kept)
            assert error > 100 * TOLERANCE, (
                f"{key} set to zero moves the logits by only {error:.1e}"
            )
    assert largest_difference(ours(model, batch, whole), batch) <= TOLERANCE
