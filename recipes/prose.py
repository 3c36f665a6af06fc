"""A small Griffin on any prose, with the bundled vocabulary of 2048 pieces.

    griffin data prepare TEXTS --tokenizer fledgling --out DATA
    griffin pretrain recipes/prose.py --data DATA --out RUN

5.3 million parameters; --set length=4096 --set segment=1024 trains on longer documents than memory
holds at once, --set rows=1 --set accumulate=16 needs the least memory for the same steps.
"""

from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import ModelConfig
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.data.feeds import PackedText


def recipe() -> TrainConfig:
    """16 thousand tokens a step; whole documents side by side in rows, none sees another."""
    recurrent = RGLRU(width=256, heads=4, lambda_init="paper")
    model = ModelConfig(
        vocab=2048,
        width=256,
        mlp_width=768,
        layers=6,
        pattern=(recurrent, recurrent, LocalAttention(heads=4, head_dim=64, window=256)),
    )
    return TrainConfig(
        model=model,
        feed=PackedText(),
        rows=4,
        length=1024,
        accumulate=4,
        tokens=20_000_000,
        schedule="cosine",
        peak_rate=2e-3,
        weight_decay=0.1,
        log_every=10,
    )
