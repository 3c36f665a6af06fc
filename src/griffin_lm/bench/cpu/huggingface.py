"""transformers' RecurrentGemma as a contender, with random weights of the same shape."""

import importlib
import time
from typing import Any

import torch

from ...checkpoints.huggingface.recurrent_gemma import RECURRENT_GEMMA
from ...errors import MissingExtra
from ...models import ModelConfig
from ...shapes import JSON
from .ours import fill, matrix_parameters

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def library() -> Any:
    """The package `transformers`. Raises MissingExtra where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "peers", "measuring it beside ours") from error
    return transformers


class Contender:
    """RecurrentGemmaForCausalLM; weights: bf16 or fp32."""

    def __init__(self, threads: int, weights: str, config: ModelConfig) -> None:
        torch.set_num_threads(threads)
        transformers = library()
        self.config, dtype = config, DTYPES[weights]
        described = RECURRENT_GEMMA.describe(config, dtype, None)["config.json"]
        settings = {name: value for name, value in described.items() if name != "architectures"}
        named = transformers.AutoConfig.for_model(**settings)
        with importlib.import_module("transformers.initialization").no_init_weights():
            self.model = transformers.AutoModelForCausalLM.from_config(named, dtype=dtype).eval()
        self.model.tie_weights()
        with torch.no_grad():
            for parameter in self.model.parameters():
                fill(parameter)

    def facts(self) -> JSON:
        """Sizes."""
        size = sum(p.nbytes for p in self.model.parameters())
        count = sum(p.numel() for p in self.model.parameters())
        return {
            "parameters": count,
            "weights_bytes": size,
            "bits_per_weight": 8 * size / count,
            "head_bits": 8.0 * self.model.dtype.itemsize,
            "flops_per_token": 2 * matrix_parameters(self.config),
        }

    def bytes_per_step(self, batch: int, context: int) -> int:
        """The weights; its state is left out, in its favour, being less than 1 % of them."""
        return sum(p.nbytes for p in self.model.parameters())

    @torch.no_grad()
    def decode(self, batch: int, context: int, count: int) -> float:
        """Seconds for `count` greedy steps of generate(), after the prompt and one step."""
        prompt = torch.full((batch, max(context, 4)), 3)
        times: list[float] = []

        def stop(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            times.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

        self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            max_new_tokens=count + 2,
            stopping_criteria=[stop],
        )
        return times[-1] - times[1]

    @torch.no_grad()
    def prefill(self, count: int) -> float:
        """Seconds to read a prompt of `count` tokens, up to the logits of its last."""
        tokens = torch.randint(self.config.vocab, (1, count))
        began = time.perf_counter()
        self.model(tokens, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - began
