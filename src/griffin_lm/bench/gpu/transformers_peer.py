"""transformers' RecurrentGemma of the same size, eager, as a stranger would run it."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .limits import seconds

Row = dict[str, Any]
LENGTH = 2048


def rows(config: Any = None, length: int = LENGTH, device: str = "cuda") -> Iterator[Row]:
    """Decoding at batch 1, a prompt of 2k tokens, a training step at 2k; its scan is a loop.

    config: transformers' own; None is that of the 2B.
    """
    transformers = import_module("transformers")
    config = config or transformers.RecurrentGemmaConfig()
    with torch.device(device):
        model = transformers.RecurrentGemmaForCausalLM(config).to(torch.bfloat16)
    tokens = torch.randint(0, config.vocab_size, (1, length), device=device)
    about: Row = {"who": "transformers, eager", "weights": "bf16", "batch": 1}

    def written(prompt: Tensor, count: int) -> None:
        model.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False)

    with torch.no_grad():
        short = seconds(lambda: written(tokens[:, :16], 1), least=0.1, most=3)
        long = seconds(lambda: written(tokens[:, :16], 33), least=0.1, most=3)
        yield about | {"what": "decode", "context": 16, "tokens_per_s": 32 / (long - short)}
        spent = seconds(lambda: model(tokens), least=0.1, most=2)
        yield about | {"what": "prefill", "context": length, "tokens_per_s": length / spent}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    spent = seconds(step, least=0.1, most=1)
    yield about | {"what": "training step", "context": length, "tokens_per_s": length / spent}
