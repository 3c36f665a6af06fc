"""A whole Mamba against transformers' MambaForCausalLM, in fp32, on tiny random models.

Its forward passes of whole texts are the measure, a row at a time and without padding: our chunks
and single steps must give the same logits.
"""

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import griffin_lm as griffin
from griffin_lm.mixers import S6
from griffin_lm.models import Griffin, ModelConfig
from tests.parity import record_parity

transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
VOCAB = 61
# layers, width, channels, states, rank, taps
SHAPES = ((1, 16, 32, 16, 1, 4), (3, 20, 60, 5, 2, 2), (4, 33, 66, 7, 3, 3), (6, 48, 96, 16, 3, 4))
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)

# Theirs to ours; tried in this order.
WORDS = (
    ("backbone.embeddings.weight", "embed.weight"),
    ("backbone.norm_f.weight", "final_norm.scale"),
    ("backbone.", ""),
    (".norm.weight", ".mixer_norm.scale"),
    ("in_proj", "linear_in"),
    ("conv1d.weight", "conv.w"),
    ("conv1d.bias", "conv.b"),
    ("x_proj", "select"),
    ("dt_proj", "step"),
    ("out_proj", "linear_out"),
)


def our_name(name: str) -> str:
    """Our name of one of their weights."""
    for theirs, ours in WORDS:
        name = name.replace(theirs, ours)
    return name


def as_ours(name: str, weight: Tensor) -> Tensor:
    """Their weight, or its gradient, in our layout."""
    return weight[:, 0].T if name.endswith("conv1d.weight") else weight


def their_config(shape: tuple[int, ...], vocab: int = VOCAB) -> Any:
    """The model for transformers."""
    layers, width, inner, states, rank, taps = shape
    return transformers.MambaConfig(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=layers,
        expand=inner // width,
        state_size=states,
        time_step_rank=rank,
        conv_kernel=taps,
    )


def our_config(shape: tuple[int, ...]) -> ModelConfig:
    """The same for us."""
    layers, width, inner, states, rank, taps = shape
    return ModelConfig(
        vocab=VOCAB,
        width=width,
        mlp="none",
        mlp_width=0,
        layers=layers,
        pattern=(S6(width=inner, rank=rank, states=states, conv_width=taps),),
        norm_eps=1e-5,
        norm_weight="plain",
    )


def randomise(name: str, weight: Tensor, random: torch.Generator) -> None:
    """Random enough to show everywhere, steps and decays of every size."""
    noise = torch.randn(weight.shape, generator=random)
    if name.endswith(("A_log", "dt_proj.bias")):
        weight.add_(0.3 * noise)
    elif weight.dim() == 1:
        weight.add_(0.2 * noise)
    else:
        weight.copy_(noise / math.sqrt(weight.shape[-1]))


@cache
@torch.no_grad()
def pair(shape: tuple[int, ...]) -> tuple[Griffin, Any]:
    """Our model and theirs with the same random weights."""
    theirs = transformers.MambaForCausalLM(their_config(shape)).eval()
    random = torch.Generator().manual_seed(sum(shape))
    for name, weight in theirs.named_parameters():  # the head is the embedding and comes once
        randomise(name, weight, random)
    weights = {our_name(n): as_ours(n, w).clone() for n, w in theirs.named_parameters()}
    ours = Griffin(our_config(shape))
    ours.load_state_dict(weights, strict=True)
    return ours, theirs


def text(length: int, rows: int = 1) -> Tensor:
    """Random tokens (rows, length)."""
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(length))


def record(shape: tuple[int, ...], case: str, error: Any, tolerance: float = TOLERANCE) -> None:
    layers, width, inner, states, rank, taps = shape
    model = (
        f"Mamba, {layers} layers, width {width}, {inner} channels of {states}, rank {rank}, "
        f"{taps} taps"
    )
    record_parity(
        f"transformers | {model} | {case}", torch.as_tensor(error).detach().item(), tolerance
    )


@each_shape
@pytest.mark.parametrize("length", (1, 2, 3, 5, 63, 130))
@torch.no_grad()
def test_a_prompt_gives_transformers_logits(shape: tuple[int, ...], length: int) -> None:
    ours, theirs = pair(shape)
    tokens = text(length, rows=2)
    expected = theirs(tokens, use_cache=False).logits
    record(shape, f"{length} tokens", (ours(tokens)[0] - expected).abs().max())


@each_shape
@pytest.mark.parametrize("piece", (1, 7))
@torch.no_grad()
def test_chunks_and_steps_give_the_same_logits(shape: tuple[int, ...], piece: int) -> None:
    ours, theirs = pair(shape)
    tokens, state, error = text(45), None, 0.0
    expected = theirs(tokens, use_cache=False).logits
    for part, wanted in zip(tokens.split(piece, 1), expected.split(piece, 1), strict=True):
        logits, state = ours(part, state=state)
        error = max(error, (logits - wanted).abs().max().item())
    record(shape, f"45 tokens in calls of {piece}", error)


@torch.no_grad()
def test_left_padded_rows_equal_transformers_rows_alone() -> None:
    ours, theirs = pair(SHAPES[1])
    tokens, valid = text(20, rows=4), torch.ones(4, 20, dtype=torch.bool)
    for row, padding in enumerate((0, 3, 11, 19)):
        valid[row, :padding] = False
    logits, _ = ours(tokens, valid=valid)
    error = 0.0
    for row in range(4):
        expected = theirs(tokens[row : row + 1, valid[row]], use_cache=False).logits
        error = max(error, (logits[row, valid[row]] - expected[0]).abs().max().item())
    record(SHAPES[1], "left-padded, each row alone", error)


@each_shape
def test_a_training_step_has_transformers_loss_and_gradients(shape: tuple[int, ...]) -> None:
    ours, theirs = pair(shape)
    tokens = text(33, rows=2)
    ours.zero_grad()
    theirs.train().zero_grad()
    logits = ours(tokens[:, :-1])[0]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    expected = theirs(tokens, labels=tokens, use_cache=False).loss
    record(shape, "loss", (loss - expected).abs(), 1e-5)
    loss.backward()
    expected.backward()
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        exact = as_ours(name, parameter.grad)
        error = (found[our_name(name)] - exact).abs().max() / exact.abs().max()
        record(shape, "every gradient, relative to its largest entry", error, 1e-4)
    theirs.eval()


@pytest.mark.parametrize(
    "size, published", (("130m", 129_135_360), ("370m", None), ("790m", None), ("2.8b", None))
)
def test_presets_have_as_many_parameters_as_transformers_builds(
    size: str, published: int | None
) -> None:
    model = griffin.build(f"mamba-{size}", device="meta")
    block = model.config.mixer(0)
    assert isinstance(block, S6)
    shape = (model.config.layers, model.config.width, block.width, 16, block.rank, 4)
    with torch.device("meta"):
        theirs = transformers.MambaForCausalLM(their_config(shape, model.config.vocab))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(parameter.numel() for parameter in theirs.parameters())
    assert published in (None, count)
