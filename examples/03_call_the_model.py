"""The model call: chunks, ragged batches, packed documents.

python examples/03_call_the_model.py        random weights; needs no checkpoint
"""

import torch

import griffin_lm as griffin

torch.manual_seed(0)
model = griffin.build("tiny-griffin", seed=0).requires_grad_(False)
tokens = torch.randint(0, model.config.vocab, (1, 30))
whole, _ = model(tokens)


def report(what: str, error: torch.Tensor) -> None:
    """Prints a difference, and stops if it is more than rounding."""
    print(f"{what}: {float(error):.0e} apart")
    assert error < 1e-5


# cut anywhere, hand the state on: the logits of the whole
first, state = model(tokens[:, :11])
second, state = model(tokens[:, 11:], state=state)
report("two chunks and the whole", (torch.cat([first, second], 1) - whole).abs().max())
print(f"the state stands for {int(state.tokens)} tokens in {state.nbytes} bytes")

# rows of different length: padding anywhere, and `valid` says where
short = torch.randint(0, model.config.vocab, (1, 20))
batch = torch.zeros(2, 30, dtype=torch.int64)
batch[0], batch[1, 10:] = tokens, short
valid = torch.ones(2, 30, dtype=torch.bool)
valid[1, :10] = False
ragged, _ = model(batch, valid=valid)
report("a padded row and the row alone", (ragged[1, 10:] - model(short)[0][0]).abs().max())

# two documents in one row: `starts` marks where the second begins
packed = torch.cat([tokens, short], dim=1)
starts = torch.zeros_like(packed, dtype=torch.bool)
starts[0, 30] = True
both, _ = model(packed, starts=starts)
report("packed and separate", (both[:, 30:] - model(short)[0]).abs().max())

# the last logits only, and a state whose memory may be reused
last, state = model(short, state=state, logits="last", donate=True)
print(f"last logits {tuple(last.shape)}, {int(state.tokens)} tokens read")
