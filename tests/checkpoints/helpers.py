"""What the tests of checkpoints share: small models, and files taken apart and put together."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import griffin_lm as griffin
from griffin_lm.mixers import RGLRU, LocalAttention

Good = Callable[[str], Path]  # the fixture that writes a good checkpoint
WEIGHTS = "model.safetensors"

# as RecurrentGemma, but tiny: one number of heads, scaled embeddings, a cap
TINY = replace(
    griffin.PRESETS["tiny-griffin"],
    logit_cap=30.0,
    scale_embeddings=True,
    pattern=(
        RGLRU(width=32, heads=2),
        RGLRU(width=32, heads=2),
        LocalAttention(heads=2, head_dim=16, window=8),
    ),
)


def random_model(config: griffin.ModelConfig = TINY, seed: int = 0) -> griffin.Griffin:
    """Every parameter random, so that none passes for another."""
    model = griffin.build(config, seed=seed).requires_grad_(False)
    random = torch.Generator().manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        if not name.endswith("Lambda"):
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return model


def tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def assert_same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """The same names, dtypes and bits."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a JSON file in place."""
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def split_file(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def join_file(path: Path, header: Any, data: bytes) -> None:
    """Writes a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def edit_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the header of a safetensors file and leaves the data."""
    header, data = split_file(path)
    change(header)
    join_file(path, header, data)
