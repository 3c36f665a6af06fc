"""Text out of a model: at once, as it comes, and several at a time.

python examples/01_generate.py [MODEL]      MODEL: fledgling (bundled), or a checkpoint's folder
"""

import sys

import griffin_lm as griffin

lm = griffin.load(sys.argv[1] if len(sys.argv) > 1 else "fledgling")

# temperature 0 (the default) always takes the likeliest token: the same text every time
out = lm.generate("The old house", max_new_tokens=24)
print(f"greedy: {out.text!r} ({len(out.tokens)} tokens, ended by {out.finish_reason})")

# sampled, piece by piece; the seed makes it repeatable
print("sampled: ", end="")
for piece in lm.stream("The old house", max_new_tokens=24, temperature=0.8, top_p=0.95, seed=1):
    print(piece, end="", flush=True)
print()

# prompts of different lengths in one batch: each row gives what it would give alone
batch = lm.generate(["The sea", "In the morning, when it was still dark,"], max_new_tokens=12)
for row in batch:
    print(f"in a batch: {row.text!r}")
