"""Who takes part: our trainer, and transformers' models trained by the usual few lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...allocator import keep_freed_memory
from ...errors import MissingExtra
from ...mixers import RGLRU
from ...models.config import ModelConfig
from ...models.griffin import build
from ...training.batch import Batch
from ...training.config import TrainConfig
from ...training.speed import matmul_parameters
from ...training.trainer import Trainer
from .cases import Case

CLIP, RATE = 1.0, 1e-4


class Contestant(NamedTuple):
    """step(length, rows): one whole training step, from tokens to updated weights; its loss."""

    who: str
    weights: str
    parameters: int  # in matrix products, the head's among them
    step: Callable[[int, int], float]


def contestants(
    case: Case, peers: bool, bf16: bool, compiled: bool, compile_peers: bool = False
) -> list[Contestant]:
    """Ours first. The others' models and ours have as many parameters, and see the same tokens.

    The allocator is told to keep memory, as in our runs, which serves everyone in this process.
    """
    keep_freed_memory()
    found = [_ours(case, False, compiled)]
    if bf16:
        found.append(_ours(case, True, compiled))
    size = found[0].parameters
    for narrow in (False, True)[: 1 + bf16] if peers else ():
        found += [_peer(case, kind, size, narrow, False) for kind in case.peers]
        if compile_peers and "Llama" in case.peers:
            found.append(_peer(case, "Llama", size, narrow, True))
    return found


class _Repeated:
    """A feed of one batch of random tokens, each row one document."""

    def __init__(self, vocab: int) -> None:
        self.vocab, self.shape = vocab, (1, 1)

    def take(self, share: float) -> Batch:
        """The batch of this shape, the same every time."""
        tokens = tokens_of(self.vocab, *self.shape)
        starts = torch.zeros_like(tokens, dtype=torch.bool)
        weight = torch.ones(tokens.shape)
        weight[:, -1] = 0
        return Batch(tokens, starts, torch.ones_like(starts), tokens.roll(-1, 1), weight)

    def observe(self, batch: Batch, loss: Tensor, right: Tensor) -> None:
        """Nothing is learned from how it went."""

    def to_dict(self) -> dict[str, Any]:
        """No position."""
        return {}

    def restore(self, saved: dict[str, Any]) -> None:
        """No position."""


def tokens_of(vocab: int, rows: int, length: int) -> Tensor:
    """Random tokens (rows, length), always the same."""
    random = torch.Generator().manual_seed(length)
    return torch.randint(3, vocab, (rows, length), generator=random)


def _ours(case: Case, bf16: bool, compiled: bool) -> Contestant:
    config = TrainConfig(
        model=case.model, steps=1_000_000, bf16=bf16, compile=compiled, clip=CLIP,
        peak_rate=RATE, warmup_steps=1,
    )  # fmt: skip
    model = build(case.model, seed=0)
    feed = _Repeated(case.model.vocab)
    trainer = Trainer(model, feed, config, Path())

    def step(length: int, rows: int) -> float:
        feed.shape = (rows, length)
        return trainer.step().loss

    name = "griffin" if trainer.compiled else "griffin, eager"
    return Contestant(name, "bf16" if bf16 else "fp32", matmul_parameters(model), step)


def _peer(case: Case, kind: str, parameters: int, bf16: bool, compiled: bool) -> Contestant:
    """One of transformers' models, with its own loss and PyTorch's fused AdamW.

    bf16: under autocast, weights in fp32, as ours.
    """
    model = build_peer(case.model, kind, parameters).train()
    if compiled:
        for layer in model.model.layers:
            layer.forward = torch.compile(layer.forward, dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)

    def step(length: int, rows: int) -> float:
        tokens = tokens_of(case.model.vocab, rows, length)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    name = f"transformers {kind}" + (", compiled" if compiled else "")
    return Contestant(name, "bf16" if bf16 else "fp32", _products(model), step)


def _products(model: nn.Module) -> int:
    """matmul_parameters of transformers' models: matrices and gates; a tied table counts once."""
    skipped = ("conv_1d.weight", "gate_bias")
    return sum(
        p.numel() for name, p in model.named_parameters()
        if p.dim() >= 2 and not name.endswith(skipped)
    )  # fmt: skip


def build_peer(config: ModelConfig, kind: str, parameters: int) -> Any:
    """transformers' RecurrentGemma of this very shape, or a Llama of as many parameters.

    Raises MissingExtra where transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "dev", "--peers") from error
    torch.manual_seed(0)
    attention: Any = next(m for m in config.pattern if m.kind == "local_attention")
    shared: dict[str, Any] = {
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": attention.heads,
        "head_dim": attention.head_dim,
        "tie_word_embeddings": True,
        "use_cache": False,
    }
    if kind == "Llama":
        per_layer = (parameters - config.vocab * config.width) / config.layers
        inner = (per_layer - 4 * config.width**2) / (3 * config.width)
        shared["intermediate_size"] = max(8, round(inner / 8) * 8)
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared))
    recurrent = next(m for m in config.pattern if isinstance(m, RGLRU))
    return transformers.RecurrentGemmaForCausalLM(
        transformers.RecurrentGemmaConfig(
            **shared, lru_width=recurrent.width, num_key_value_heads=1,
            intermediate_size=2 * config.mlp_width,
            attention_window_size=attention.window + 1,
            block_types=["attention" if m.kind == "local_attention" else "recurrent"
                         for m in config.pattern],
        )
    )  # fmt: skip
