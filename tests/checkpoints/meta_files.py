"""Folders in Meta's layout of Llama 3, and its forward pass, written down from the published code.

https://github.com/meta-llama/llama3/blob/main/llama/model.py: pairs of neighbours turn, as complex
numbers; `use_scaled_rope` as in llama-models. In fp32, whole texts only.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu, softmax

# Llama 3's shape, small: grouped queries, 128-wide heads
PARAMS: dict[str, Any] = {
    "dim": 512,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "vocab_size": 160,
    "multiple_of": 64,
    "ffn_dim_multiplier": 1.3,
    "norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "use_scaled_rope": True,
}


def ffn_width(params: dict[str, Any]) -> int:
    """Of one branch."""
    width = int(params.get("ffn_dim_multiplier", 1.0) * int(2 * 4 * params["dim"] / 3))
    return params["multiple_of"] * math.ceil(width / params["multiple_of"])


def random_weights(params: dict[str, Any], tied: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Their names, in the order in which their module has them."""
    random = torch.Generator().manual_seed(seed)
    width, vocab, ffn = params["dim"], params["vocab_size"], ffn_width(params)
    keys = width // params["n_heads"] * params["n_kv_heads"]
    shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (vocab, width)}
    for i in range(params["n_layers"]):
        shapes |= {
            f"layers.{i}.attention.wq.weight": (width, width),
            f"layers.{i}.attention.wk.weight": (keys, width),
            f"layers.{i}.attention.wv.weight": (keys, width),
            f"layers.{i}.attention.wo.weight": (width, width),
            f"layers.{i}.feed_forward.w1.weight": (ffn, width),
            f"layers.{i}.feed_forward.w3.weight": (ffn, width),
            f"layers.{i}.feed_forward.w2.weight": (width, ffn),
            f"layers.{i}.attention_norm.weight": (width,),
            f"layers.{i}.ffn_norm.weight": (width,),
        }
    shapes |= {"norm.weight": (width,), "output.weight": (vocab, width)}
    found = {
        name: torch.randn(shape, generator=random) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.2)
        + (len(shape) == 1)
        for name, shape in shapes.items()
    }
    if tied:
        found["output.weight"] = found["tok_embeddings.weight"].clone()
    return found


def write_meta(
    folder: Path, params: dict[str, Any], weights: dict[str, Tensor], files: int = 1
) -> Path:
    """As a run over `files` processes saves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))
    for n in range(files):
        mine: dict[str, Tensor] = {}
        for name, weight in weights.items():
            axis = 1 if name.endswith(("wo.weight", "w2.weight")) else 0
            whole = weight.dim() == 1
            mine[name] = weight if whole else weight.chunk(files, axis)[n].clone()
        torch.save(mine, folder / f"consolidated.{n:02d}.pth")
    return folder


def _frequencies(params: dict[str, Any], factor: float) -> Tensor:
    width = params["dim"] // params["n_heads"]
    found: list[float] = []
    for j in range(0, width, 2):
        frequency = params["rope_theta"] ** (-j / width)
        wavelength = 2 * math.pi / frequency
        if factor != 1 and wavelength > 8192 / 1:
            frequency /= factor
        elif factor != 1 and wavelength > 8192 / 4:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            frequency = (1 - smooth) * frequency / factor + smooth * frequency
        found.append(frequency)
    return torch.tensor(found, dtype=torch.float64)


def meta_logits(
    params: dict[str, Any], weights: dict[str, Tensor], tokens: Tensor, factor: float = 1.0
) -> Tensor:
    """(B, T) to (B, T, V)."""
    heads, shared, length = params["n_heads"], params["n_kv_heads"], tokens.shape[1]
    angle = torch.outer(torch.arange(length).double(), _frequencies(params, factor))
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + params["norm_eps"]).rsqrt() * weights[name]

    def turned(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turn).flatten(-2).float()

    x = weights["tok_embeddings.weight"][tokens]
    mask = torch.full((length, length), -torch.inf).triu(1)
    for i in range(params["n_layers"]):
        at = f"layers.{i}."
        y = norm(x, at + "attention_norm.weight")
        q, k, v = (
            (y @ weights[f"{at}attention.w{part}.weight"].T).unflatten(-1, (count, -1))
            for part, count in (("q", heads), ("k", shared), ("v", shared))
        )
        q, k = turned(q), turned(k).repeat_interleave(heads // shared, dim=2)
        v = v.repeat_interleave(heads // shared, dim=2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1]) + mask
        mixed = torch.einsum("bhqk,bkhd->bqhd", softmax(scores, -1), v).flatten(-2)
        x = x + mixed @ weights[at + "attention.wo.weight"].T
        y = norm(x, at + "ffn_norm.weight")
        gate = silu(y @ weights[at + "feed_forward.w1.weight"].T)
        x = (
            x
            + (gate * (y @ weights[at + "feed_forward.w3.weight"].T))
            @ weights[at + "feed_forward.w2.weight"].T
        )
    return norm(x, "norm.weight") @ weights["output.weight"].T
