"""Loading and saving take the memory of the weights, once: measured in a process of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's account of anonymous memory"
)

# Saves a model, drops it, loads it again; prints the bytes of the weights and by how much the
# anonymous memory (RssAnon) grew at most meanwhile, sampled by a thread.
SCRIPT = """
import gc, json, sys, threading, time
from dataclasses import replace
import torch
import griffin_lm as griffin
from griffin_lm.checkpoints import load_model, save_model

if sys.argv[2] == "deepmind-flax":
    import tensorstore  # the library's own memory is not that of weights

torch.set_num_threads(1)
folder, form, preset, dtype = sys.argv[1:5]
quantize = sys.argv[5] if len(sys.argv) > 5 else None
config = griffin.PRESETS["recurrentgemma-2b"]
if preset == "small":
    recurrent, _, attention = config.pattern
    pattern = (recurrent, recurrent, replace(attention, head_dim=64))
    config = replace(
        config, layers=3, vocab=20_000, width=640, mlp_width=1920, pattern=pattern
    )

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

class Watch(threading.Thread):
    def __enter__(self):
        gc.collect()
        self.before = self.most = anonymous()
        self.on = True
        self.start()
        return self
    def run(self):
        while self.on:
            self.most = max(self.most, anonymous())
            time.sleep(0.0005)
    def __exit__(self, *_):
        self.on = False
        self.join()
        self.grown = max(self.most, anonymous()) - self.before

model = griffin.Griffin(config, "cpu", torch.bfloat16).requires_grad_(False)
for parameter in model.parameters():
    parameter.fill_(0.01)
with Watch() as saving:
    save_model(model, folder, form, quantize=quantize)
known = model.origin.model()
source = sum(p.nbytes for p in model.parameters())
del model
with Watch() as loading:
    began = time.perf_counter()
    model = load_model(folder, dtype=getattr(torch, dtype))
    seconds = time.perf_counter() - began
assert model.origin.model() == known
result = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
print(json.dumps(dict(source=source, result=result, saving=saving.grown, loading=loading.grown,
                      seconds=seconds)))
"""


def measure(folder: Path, *words: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), *words], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("form", ["griffin", "huggingface", "deepmind-torch", "deepmind-flax"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_loads_in_its_own_size(form: str, dtype: str, tmp_path: Path) -> None:
    found = measure(tmp_path / "m", form, "small", dtype)
    assert found["result"] > 60e6, "too small to measure"
    assert found["loading"] <= 1.15 * found["result"], found
    # a little may lie in memory that saving left to the process
    assert found["loading"] >= 0.8 * found["result"], "the measurement misses the weights"
    threads = 16e6 if form == "deepmind-flax" else 0  # of tensorstore, each with its own memory
    assert found["saving"] <= 0.15 * found["source"] + threads, found


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_model_is_rounded_while_it_is_written_and_loads_in_the_size_it_has_then(
    kind: str, tmp_path: Path
) -> None:
    found = measure(tmp_path / "m", "griffin", "small", "bfloat16", kind)
    # the embedding and its bytes in `kind`, and a little to round with
    assert found["saving"] <= 0.25 * found["source"] + 8e6, found
    assert found["loading"] <= 1.15 * found["result"] + 2e6, found
    # most of it may lie in memory that rounding left to the process
    assert found["loading"] > 1e6, "the measurement misses the weights"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_2b_model_loads_in_its_own_size(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 8e9:
        pytest.skip("needs 8 GB of disk")
    found = measure(tmp_path / "m", "huggingface", "2b", "bfloat16")
    assert found["result"] == 2 * 2_682_862_080
    assert found["loading"] <= 1.15 * found["result"], found
