"""The part that needs peft: its LoRA around our linear maps, rounded ones too, and its settings."""

import json
import warnings
from typing import Any

import peft
from peft.tuners.lora.layer import Linear as LoraLinear

from ...errors import CheckpointError
from ...layers.linear import Linear
from ...layers.quantized import QuantizedMatrix
from ...models import Griffin
from ...shapes import JSON
from .targets import Targets


class AdaptedLinear(LoraLinear):
    """y = base(x) + scale B A dropout(x), around a Linear whose weight may be a QuantizedMatrix.

    The base is called, never its weight taken, so whatever kernel multiplies it serves.
    """

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """As peft's; CheckpointError for a rounded weight, which would be rounded anew."""
        if isinstance(self.get_base_layer().weight, QuantizedMatrix):
            raise CheckpointError(
                "an adapter is not merged into rounded weights: they would be rounded again. Save "
                "it, and give it with --adapter to `griffin convert` of the unrounded model"
            )
        super().merge(safe_merge, adapter_names)


def inject(model: Griffin, targets: Targets, rank: int, alpha: float, dropout: float) -> None:
    """Wraps the targets in place; everything else no longer asks for a gradient."""
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  (peft only divides it)
        lora_dropout=dropout,
        target_modules=list(targets.modules),
        target_parameters=list(targets.parameters) or None,
        bias="none",
    )
    # peft's own way for layers that it does not know; "experimental" in its words, and pinned
    config._register_custom_module({Linear: AdaptedLinear})  # pyright: ignore[reportPrivateUsage]
    with warnings.catch_warnings():
        # BlockDiagonal has no in_features: peft asks its parameter for the shape instead
        warnings.filterwarnings("ignore", "Unsupported layer type", UserWarning)
        peft.inject_adapter_in_model(config, model)


def settings(
    rank: int,
    alpha: float,
    dropout: float,
    modules: list[str],
    parameters: list[str],
    base: str,
) -> JSON:
    """adapter_config.json, as this peft writes it."""
    made: Any = peft.LoraConfig(
        r=rank,
        # a whole number as peft's own files have it; peft only divides what is none
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=dropout,
        target_modules=modules,
        target_parameters=parameters or None,
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base,
    ).to_dict()
    made["target_modules"] = modules  # peft keeps a set
    return json.loads(json.dumps(made, default=lambda value: getattr(value, "value", str(value))))
