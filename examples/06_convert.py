"""Between formats: what one of them holds, the other holds too, bit for bit.

python examples/06_convert.py        random weights in RecurrentGemma's shape, but tiny
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import load_model
from griffin_lm.mixers import RGLRU, LocalAttention

# as the 2B model: a gate block per head, scaled embeddings, capped logits
recurrent = RGLRU(width=32, heads=2)
attention = LocalAttention(heads=2, head_dim=16, window=8)
config = replace(
    griffin.PRESETS["recurrentgemma-2b"],
    vocab=96,
    width=32,
    mlp_width=96,
    layers=5,
    pattern=(recurrent, recurrent, attention),
)
model = griffin.build(config, seed=0)

with tempfile.TemporaryDirectory() as folder:
    for form in ("griffin", "huggingface"):
        path = Path(folder) / form
        griffin.save(model, path, format=form)
        print(f"{form}: {', '.join(sorted(file.name for file in path.iterdir()))}")

        again = load_model(path)
        both = zip(model.parameters(), again.parameters(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in both)
        assert again.config.identity() == config.identity()
        print(f"{form}: read again, every weight the same")
