"""A plain training loop with carried state: the model learns to say again what it read long ago.

python examples/05_train_from_scratch.py [STEPS]

A word comes once, then filler, then a question; the answer is the word. The attention window is
shorter than the filler, so the word can only come through the recurrent state.
"""

import sys
from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

import griffin_lm as griffin
from griffin_lm.mixers import RGLRU, LocalAttention

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 150
WORDS, FILLER, QUESTION, GAP = 8, 8, 9, 12

recurrent = RGLRU(width=32, heads=2, lambda_init="paper")
attention = LocalAttention(heads=2, head_dim=16, window=4)
config = replace(
    griffin.PRESETS["tiny-griffin"],
    vocab=10,
    layers=3,
    pattern=(recurrent, recurrent, attention),
)
model = griffin.build(config, seed=0)
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
torch.manual_seed(0)

for step in range(STEPS):
    words = torch.randint(0, WORDS, (32, 1))
    story = torch.cat([words, torch.full((32, GAP), FILLER)], dim=1)
    # two calls, so that the gradient too goes through the state
    _, state = model(story, logits=None)
    logits, _ = model(torch.full((32, 1), QUESTION), state=state, logits="last")
    loss = cross_entropy(logits, words[:, 0])
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    if step == 0 or (step + 1) % 50 == 0:
        right = (logits.argmax(-1) == words[:, 0]).float().mean()
        print(f"step {step + 1}: loss {loss.detach():.3f}, {right:.0%} right")
