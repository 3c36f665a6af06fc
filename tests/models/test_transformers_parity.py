"""Our logits against transformers' RecurrentGemmaForCausalLM, in fp32, on tiny random models.

What has to be arranged for the two to mean the same (shared by all tests here):

- its `attention_window_size` counts the token itself, so it is our window + 1;
- `num_key_value_heads=1`, `intermediate_size` is both branches of the MLP together;
- one row, no padding, full forward passes only: its padding, its packed documents and, where
  lru_width differs from the width, its cached steps are wrong, so each of our single steps is
  compared with its forward pass of the whole prefix;
- a soft cap of 0 divides by zero in it: there its capless head is asked instead.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import Griffin, ModelConfig
from tests.parity import record_parity

# the dev extra brings it; the package itself must pass its tests without
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
VOCAB = 61
STEPS = 50

# Theirs to ours, longest first where one contains another; tried in this order.
WORDS = (
    ("model.embed_tokens.weight", "embed.weight"),
    ("model.", ""),
    ("temporal_pre_norm.weight", "mixer_norm.scale"),
    ("channel_pre_norm.weight", "mlp_norm.scale"),
    ("final_norm.weight", "final_norm.scale"),
    ("temporal_block.rg_lru.recurrent_param", "mixer.cell.Lambda"),
    ("temporal_block.rg_lru.recurrent_gate_weight", "mixer.cell.a_gate.w"),
    ("temporal_block.rg_lru.recurrent_gate_bias", "mixer.cell.a_gate.b"),
    ("temporal_block.rg_lru.input_gate_weight", "mixer.cell.x_gate.w"),
    ("temporal_block.rg_lru.input_gate_bias", "mixer.cell.x_gate.b"),
    ("temporal_block.conv_1d.weight", "mixer.conv.w"),
    ("temporal_block.conv_1d.bias", "mixer.conv.b"),
    ("temporal_block.o_proj", "mixer.out"),
    ("temporal_block.", "mixer."),
    ("mlp_block.", "mlp."),
    ("_proj.", "."),
)


@dataclass(frozen=True)
class Shape:
    """A model of both kinds: `pattern` in letters, one a layer, R recurrent and A attention."""

    pattern: str
    heads: int
    width: int
    lru_width: int
    window: int
    cap: float

    def __str__(self) -> str:
        same = "" if self.lru_width == self.width else f" (recurrence {self.lru_width})"
        cap = f"cap {self.cap:g}" if self.cap else "no cap"
        heads = f"{self.heads} head{'s' * (self.heads > 1)}"
        return f"{self.pattern}, {heads}, width {self.width}{same}, window {self.window}, {cap}"


SHAPES = (
    Shape("RRA", heads=1, width=16, lru_width=16, window=8, cap=30.0),
    Shape("RRARR", heads=2, width=24, lru_width=24, window=8, cap=5.0),
    Shape("RRARRA", heads=4, width=32, lru_width=48, window=12, cap=0.0),
    Shape("RARA", heads=8, width=64, lru_width=40, window=7, cap=4.0),
    Shape("RRA", heads=10, width=40, lru_width=60, window=16, cap=0.0),
    Shape("RRARR", heads=16, width=64, lru_width=64, window=16, cap=30.0),
    Shape("RRR", heads=4, width=20, lru_width=20, window=8, cap=0.0),
    Shape("AA", heads=3, width=24, lru_width=24, window=5, cap=2.0),
)


def our_config(shape: Shape) -> ModelConfig:
    """The configuration for our model."""
    head_dim = shape.width // shape.heads
    mixers = {
        "R": RGLRU(width=shape.lru_width, heads=shape.heads),
        "A": LocalAttention(heads=shape.heads, head_dim=head_dim, window=shape.window),
    }
    return ModelConfig(
        vocab=VOCAB,
        width=shape.width,
        mlp_width=2 * shape.width,
        layers=len(shape.pattern),
        pattern=tuple(mixers[letter] for letter in shape.pattern),
        logit_cap=shape.cap,
        scale_embeddings=True,
    )


def their_config(shape: Shape) -> Any:
    """The same model for transformers."""
    return transformers.RecurrentGemmaConfig(
        vocab_size=VOCAB,
        hidden_size=shape.width,
        intermediate_size=2 * 2 * shape.width,
        num_hidden_layers=len(shape.pattern),
        num_attention_heads=shape.heads,
        num_key_value_heads=1,
        lru_width=shape.lru_width,
        attention_window_size=shape.window + 1,
        logits_soft_cap=shape.cap or 30.0,
        block_types=[{"R": "recurrent", "A": "attention"}[letter] for letter in shape.pattern],
        pad_token_id=None,
    )


def randomise(named: Iterator[tuple[str, Tensor]], layers: int) -> None:
    """Every weight random and large enough to show; decays between 0.5 and 0.997 a step."""
    random = torch.Generator().manual_seed(layers)
    for name, weight in named:
        noise = torch.randn(weight.shape, generator=random)
        if name.endswith("recurrent_param"):
            exponent = torch.empty(weight.shape).uniform_(-2.5, -0.3, generator=random)
            value = torch.log(torch.expm1(-torch.log1p(-(10**exponent)) / 4))
        elif weight.dim() == 1 or name.endswith("gate_bias"):
            value = 0.2 * noise
        elif "conv_1d" in name:
            value = 0.5 * noise
        else:
            value = noise / math.sqrt(weight.shape[-1])
            if any(way_out in name for way_out in ("linear_out", "o_proj", "down_proj")):
                value *= math.sqrt(2 / layers)
        weight.copy_(value)


def our_name(name: str) -> str:
    """Our name of one of their weights."""
    for theirs, ours in WORDS:
        name = name.replace(theirs, ours)
    return name


@cache
@torch.no_grad()
def pair(shape: Shape) -> tuple[Griffin, Any]:
    """Our model and theirs with the same random weights."""
    theirs = transformers.RecurrentGemmaForCausalLM(their_config(shape)).eval()
    randomise(theirs.named_parameters(), len(shape.pattern))
    weights = {  # the head is the embedding, so named_parameters leaves it out
        our_name(name): weight[:, 0].T if "conv_1d.weight" in name else weight
        for name, weight in theirs.named_parameters()
    }
    ours = Griffin(our_config(shape))
    ours.load_state_dict(weights, strict=True)
    return ours, theirs


@torch.no_grad()
def their_logits(theirs: Any, shape: Shape, tokens: Tensor) -> Tensor:
    """Their logits of one row, by a full forward pass."""
    if shape.cap:
        return theirs(tokens, use_cache=False).logits
    return theirs.lm_head(theirs.model(tokens, use_cache=False).last_hidden_state)


def a_row(length: int) -> Tensor:
    """Random tokens (1, length)."""
    return torch.randint(VOCAB, (1, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("where", "length"),
    [
        ("a token", lambda window: 1),
        ("far below the window", lambda window: 3),
        ("window - 1", lambda window: window - 1),
        ("window", lambda window: window),
        ("window + 1", lambda window: window + 1),
        ("window + 2", lambda window: window + 2),
        ("far beyond the window", lambda window: 6 * window + 5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@torch.no_grad()
def test_a_prompt_gives_transformers_logits(shape: Shape, where: str, length: Any) -> None:
    ours, theirs = pair(shape)
    tokens = a_row(length(shape.window))
    logits, _ = ours(tokens)
    error = (logits - their_logits(theirs, shape, tokens)).abs().max().item()
    record_parity(f"transformers | {shape} | prompt: {where}", error, TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_single_steps_give_the_logits_of_transformers_for_each_prefix(shape: Shape) -> None:
    """From a prompt short of the window to far beyond it, a token a call."""
    ours, theirs = pair(shape)
    prompt = shape.window - 3
    tokens = a_row(prompt + STEPS)
    _, state = ours(tokens[:, :prompt], logits=None)
    error = 0.0
    for end in range(prompt + 1, prompt + STEPS + 1):
        logits, state = ours(tokens[:, end - 1 : end], state=state, logits="last")
        expected = their_logits(theirs, shape, tokens[:, :end])[:, -1]
        error = max(error, (logits - expected).abs().max().item())
    record_parity(f"transformers | {shape} | {STEPS} single steps", error, TOLERANCE)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "A" in shape.pattern], ids=str)
@torch.no_grad()
def test_its_own_window_is_a_key_short(shape: Shape) -> None:
    """Should transformers ever count as DeepMind does, the window + 1 above has to go."""
    ours, theirs = pair(shape)
    config = their_config(shape)
    config.attention_window_size = shape.window
    short = transformers.RecurrentGemmaForCausalLM(config).eval()
    short.load_state_dict(theirs.state_dict())
    tokens = a_row(shape.window + 1)
    logits, _ = ours(tokens)
    off = (logits - their_logits(short, shape, tokens)).abs().amax(dim=-1)[0]
    assert off[: shape.window].max() <= TOLERANCE
    assert off[shape.window] > 100 * TOLERANCE, "the extra key makes no difference any more"
