"""Whole transformers against their written definition in float64, one token and one head at a time.

The paper's multi-query baseline has no published weights and no public class; so it, and Gemma and
Llama beside it, are computed here in plain loops from the formulas of the papers (Griffin, section
2; Gemma report, section 2; Llama 3, section 3.2) and docs/notation.md, sharing no code with ours.
"""

import math

import pytest
import torch
from torch import Tensor

import griffin_lm as griffin
from griffin_lm.models import ModelConfig
from tests.parity import record_parity

LENGTH = 31


def rms(x: Tensor, scale: Tensor, config: ModelConfig) -> Tensor:
    """x / sqrt(mean(x^2) + eps), times 1 + scale or scale."""
    weight = scale + 1 if config.norm_weight == "offset" else scale
    return x / torch.sqrt((x * x).mean() + config.norm_eps) * weight


def turned(x: Tensor, position: int, config: ModelConfig) -> Tensor:
    """One head with its first dimensions turned by the position, pair by pair."""
    mixer, y = config.pattern[0], x.clone()
    width = round(mixer.head_dim * mixer.rope_fraction)
    for j in range(width // 2):
        frequency = mixer.rope_base ** (-2 * j / width)
        if mixer.rope_factor != 1:
            wavelength = 2 * math.pi / frequency
            ratio = mixer.rope_context / wavelength
            share = (ratio - mixer.rope_low) / (mixer.rope_high - mixer.rope_low)
            share = min(1.0, max(0.0, share))
            frequency = share * frequency + (1 - share) * frequency / mixer.rope_factor
        c, s = math.cos(position * frequency), math.sin(position * frequency)
        a, b = x[j], x[j + width // 2]
        y[j], y[j + width // 2] = a * c - b * s, a * s + b * c
    return y


def affine(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """W x + b, without b where there is none."""
    y = w[f"{name}.weight"] @ x
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def activated(x: Tensor, config: ModelConfig) -> Tensor:
    """SiLU, or GELU by its tanh approximation."""
    if config.mlp == "swiglu":
        return x / (1 + torch.exp(-x))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def by_definition(model: griffin.Griffin, tokens: list[int]) -> Tensor:
    """Logits (T, V) of one document."""
    config, w = model.config, dict(model.named_parameters())
    mixer = config.pattern[0]
    factor = 1.0
    if config.scale_embeddings:
        factor = math.sqrt(config.width)
    keys: list[list[list[Tensor]]] = [[] for _ in range(config.layers)]
    values: list[list[list[Tensor]]] = [[] for _ in range(config.layers)]
    logits: list[Tensor] = []
    for t, token in enumerate(tokens):
        x = w["embed.weight"][token] * factor
        for i in range(config.layers):
            at = f"layers.{i}"
            y = rms(x, w[f"{at}.mixer_norm.scale"], config)
            q, k, v = (
                affine(w, f"{at}.mixer.{name}", y).split(mixer.head_dim) for name in ("q", "k", "v")
            )
            keys[i].append([turned(head, t, config) for head in k])
            values[i].append(list(v))
            heads: list[Tensor] = []
            for h, head in enumerate(q):
                shared = h // (mixer.heads // mixer.kv_heads)
                asking = turned(head, t, config)
                scores = torch.stack([key[shared] @ asking for key in keys[i]])
                weights = torch.exp(scores / math.sqrt(mixer.head_dim))
                weights = weights / weights.sum()
                heads.append(sum(a * v[shared] for a, v in zip(weights, values[i], strict=True)))
            x = x + affine(w, f"{at}.mixer.out", torch.cat(heads))
            y = rms(x, w[f"{at}.mlp_norm.scale"], config)
            gate = activated(affine(w, f"{at}.mlp.gate", y), config)
            x = x + affine(w, f"{at}.mlp.down", gate * affine(w, f"{at}.mlp.up", y))
        matrix = w["embed.weight"] if config.tied else w["head.weight"]
        logits.append(matrix @ rms(x, w["final_norm.scale"], config))
    return torch.stack(logits)


@pytest.mark.parametrize("preset", ("tiny-mqa", "tiny-gemma", "tiny-llama"))
@torch.no_grad()
def test_a_whole_model_is_its_definition(preset: str) -> None:
    model = griffin.build(preset, seed=3, dtype=torch.float64)
    for parameter in model.parameters():  # biases and norms away from where they start
        parameter += 0.05 * torch.randn_like(parameter)
    tokens = torch.randint(0, 96, (1, LENGTH))
    exact = by_definition(model, tokens[0].tolist())
    narrow = griffin.build(preset)
    narrow.load_state_dict(model.state_dict())
    wide_narrow = griffin.build(preset, dtype=torch.float64)
    wide_narrow.load_state_dict(narrow.state_dict())
    rounded = by_definition(wide_narrow, tokens[0].tolist())
    for name, used, expected, tolerance in (
        ("float64", model, exact, 1e-12),
        ("float32", narrow, rounded, 2e-5),
    ):
        whole, _ = used(tokens)
        steps, state = [], None
        for t in range(LENGTH):
            out, state = used(tokens[:, t : t + 1], state=state)
            steps.append(out)
        for how, mine in (("whole", whole), ("step by step", torch.cat(steps, 1))):
            error = float((mine[0] - expected).abs().max())
            record_parity(f"float64 definition | {preset} | {how}, {name}", error, tolerance)
