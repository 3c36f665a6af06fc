"""How well a model predicts a file, read in chunks at constant memory.

python examples/04_bits_per_byte.py FILE [MODEL]
"""

import math
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

import griffin_lm as griffin

CHUNK = 512  # tokens at once: memory grows with this, not with the text

text = Path(sys.argv[1]).read_text(encoding="utf-8")
lm = griffin.load(sys.argv[2] if len(sys.argv) > 2 else "fledgling")
ids = torch.tensor([lm.tokenizer.encode(text, bos=True)], device=lm.model.embed.weight.device)

nats, state = 0.0, lm.model.empty_state(1)
with torch.inference_mode():
    for begin in range(0, ids.shape[1] - 1, CHUNK):
        targets = ids[:, begin + 1 : begin + 1 + CHUNK]
        inputs = ids[:, begin : begin + targets.shape[1]]
        logits, state = lm.model(inputs, state=state, donate=True)
        nats += float(cross_entropy(logits[0].float(), targets[0], reduction="sum"))

count, size = ids.shape[1] - 1, len(text.encode())
print(f"{count} tokens, {size} bytes, a state of {state.nbytes} bytes")
print(f"{nats / count:.4f} nats per token, {nats / math.log(2) / size:.4f} bits per byte")
