"""RecurrentGemma-2B on random bf16 weights: decoding, a prompt, a training step, beside limits."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...inference.decode_step import DecodeStep
from ...inference.sampling import SamplingOptions
from ...layers.quantized import matrices, quantize_weights
from ...models import PRESETS, Griffin
from ...training.blocks import prepare_blocks, restore_blocks
from ...training.loss import token_losses
from .headline import read_state
from .limits import Limits, seconds

PRESET = "recurrentgemma-2b"
BATCHES = (1, 64, 512)
Row = dict[str, Any]


def random_model(preset: str = PRESET, device: str = "cuda") -> Griffin:
    """Drawn on the device: the numbers that `build` draws on a CPU would take a minute."""
    model = Griffin(PRESETS[preset], device=device, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("Lambda"):
                parameter.uniform_(-8, -3)
            elif parameter.dim() == 1 or name.endswith(".b"):
                parameter.zero_()
            else:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return model.eval()


def _elsewhere(model: Griffin) -> int:
    """Parameters that every token meets besides the embedding, which is the head's matrix too."""
    return sum(p.numel() for p in model.parameters()) - model.embed.weight.numel()


def _all(model: Griffin) -> tuple[int, int]:
    """Numbers in the weights, whatever they are stored in, and bytes."""
    matrices_of = matrices(model).values()
    numbers = sum(p.numel() for p in model.parameters())
    numbers += sum(matrix.shape[0] * matrix.shape[1] for matrix in matrices_of)
    stored = [*model.parameters(), *model.buffers()]
    return numbers, sum(tensor.nbytes for tensor in stored)


@torch.no_grad()
def decode_rows(
    model: Griffin,
    limit: Limits,
    left: Callable[[], float],
    batches: Sequence[int] = BATCHES,
    kind: str = "bf16",
) -> Iterator[Row]:
    """Tokens a second after 2k tokens and after a million; stops where no time is left.

    kind: what the weights are stored in, for the table.
    """
    numbers, weights = _all(model)
    operations = 2 * numbers
    for rows in batches:
        step = DecodeStep(model, rows, SamplingOptions(), logprobs=False)
        for context in (2048, 1_000_000):
            state = read_state(model, rows, context)
            step.load(state, None)
            fed, goes = [1] * rows, [True] * rows
            spent = seconds(lambda s=step, f=fed, g=goes: s.step(f, g, []), least=0.3)
            floor = max(
                (weights + state.nbytes) / limit.bytes_per_s, rows * operations / limit.flops
            )
            yield {
                "what": "decode",
                "who": "griffin",
                "weights": kind,
                "cache": model.cache,
                "batch": rows,
                "context": context,
                "tokens_per_s": rows / spent,
                "bytes_per_token": (weights + state.nbytes) / rows,
                "fraction_of_limit": floor / spent,
                "memory_bytes": torch.cuda.memory_allocated(),
            }
            del state
        del step
        torch.cuda.empty_cache()
        if left() < 0:
            return


def rounded_rows(
    kind: str, limit: Limits, left: Callable[[], float], preset: str = PRESET, device: str = "cuda"
) -> Iterator[Row]:
    """Decoding with weights of 8 or 4 bits, few rows: a model of its own, rounded on the device."""
    model = random_model(preset, device)
    quantize_weights(model, kind)
    yield from decode_rows(model, limit, left, (1, 4), kind)


@torch.no_grad()
def prefill_row(model: Griffin, limit: Limits, length: int = 8192) -> Row:
    """A prompt of one row, logits of its last token only."""
    tokens = torch.randint(0, model.config.vocab, (1, length), device=model.embed.weight.device)
    spent = seconds(lambda: model(tokens, logits="last"), least=1.0)
    operations = 2 * _elsewhere(model) * length
    return {
        "what": "prefill",
        "who": "griffin",
        "weights": "bf16",
        "batch": 1,
        "context": length,
        "tokens_per_s": length / spent,
        "fraction_of_limit": operations / spent / limit.flops,
    }


def train_row(
    model: Griffin, limit: Limits, recompute: str = "selective", length: int = 8192
) -> Row:
    """Forward, chunked loss, backward and AdamW, all in bf16.

    The operations counted are 6 a parameter and token, the head's included, however much is
    computed twice; attention's are not.
    """
    model.train().requires_grad_(True)
    prepare_blocks(model, compiled=False, recompute=recompute)
    device = model.embed.weight.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    tokens = torch.randint(0, model.config.vocab, (1, length + 1), device=device)
    weight = torch.full((1, length), 1 / length, device=device)

    def step() -> Tensor:
        hidden, _ = model.hidden(tokens[:, :-1])
        loss = token_losses(model.head, hidden, tokens[:, 1:], weight).total
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss

    try:
        spent = seconds(step, least=3.0, most=8)
    finally:  # out of memory, say: the tables go on with this model
        restore_blocks(model)
        model.zero_grad(set_to_none=True)
        model.eval().requires_grad_(False)
    operations = 6 * (_elsewhere(model) + model.embed.weight.numel()) * length
    return {
        "what": "training step",
        "who": "griffin",
        "weights": "bf16",
        "recompute": recompute,
        "batch": 1,
        "context": length,
        "tokens_per_s": length / spent,
        "fraction_of_limit": operations / spent / limit.flops,
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }
