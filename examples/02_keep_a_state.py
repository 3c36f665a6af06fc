"""A state is a value: save it, load it, go on from it twice.

python examples/02_keep_a_state.py [MODEL]
"""

import sys
import tempfile
from pathlib import Path

import griffin_lm as griffin

lm = griffin.load(sys.argv[1] if len(sys.argv) > 1 else "fledgling")

# max_new_tokens=0 only reads
read = lm.generate("It was the last day of the year, and", max_new_tokens=0)

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "year.state"
    read.state.save(file)
    state = griffin.State.load(file, lm)  # refused if model or vocabulary were others
    print(f"{int(state.tokens)} tokens in a file of {file.stat().st_size} bytes")

# two continuations of one state: it is not changed by being used
one = lm.generate(" nobody", state=state, max_new_tokens=16)
two = lm.generate(" the bells", state=state, max_new_tokens=16)
print(f"one: nobody{one.text!r}")
print(f"two: the bells{two.text!r}")

# an empty prompt goes on as if never interrupted
whole = lm.generate("", state=state, max_new_tokens=16)
half = lm.generate("", state=state, max_new_tokens=8)
rest = lm.generate("", state=half.state, max_new_tokens=8)
assert half.tokens + rest.tokens == whole.tokens
print("8 + 8 tokens = 16 tokens")
