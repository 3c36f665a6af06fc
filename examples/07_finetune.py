"""LoRA on a handful of rows: loss before and after, then the adapter loaded into the weights.

python examples/07_finetune.py [MODEL [STEPS]]      needs: pip install 'griffin-lm[train]'

Only answers are learned from; the mask is printed token by token first.
"""

import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console

import griffin_lm as griffin
from griffin_lm.training.finetuning.config import FinetuneConfig
from griffin_lm.training.finetuning.run import open_base, prepare

MODEL = sys.argv[1] if len(sys.argv) > 1 else "fledgling"
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 60
ROWS = {"the sea": "grey", "the night": "black", "the frost": "white", "the grass": "green"}

with tempfile.TemporaryDirectory() as folder:
    data, out = Path(folder) / "rows.jsonl", Path(folder) / "run"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What colour is {thing}?"},
                {"role": "assistant", "content": colour},
            ]
        }
        for thing, colour in ROWS.items()
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    config = FinetuneConfig(
        steps=STEPS, rank=8, peak_rate=5e-3, rows=2, length=64, bf16=False, log_every=1000
    )
    base = open_base(MODEL, adapter=True, dtype="float32")
    run = prepare(base, data, out, config, adapter=True)
    run.describe(Console())  # what will be learned, by what
    losses = [run.tuner.step().loss for _ in range(STEPS)]
    print(f"loss {losses[0]:.2f} at first, {losses[-1]:.3f} after {STEPS} steps")

    (adapter,) = run.finish(merge=False)  # as peft reads it, over transformers too
    lm = griffin.load(MODEL, dtype="float32", adapter=adapter)
    turn = lm.tokenizer.turn
    assert turn is not None, "this vocabulary has no turn markers"
    for thing, colour in ROWS.items():
        prompt = f"{turn.user_open}What colour is {thing}?{turn.user_close}{turn.model_open}"
        said = lm.generate(prompt, max_new_tokens=6, markers=True).text
        print(f"{thing}: {said!r}, {'right' if said == colour else 'wrong'}")
