"""RecurrentGemma-2B at full size, on random bf16 weights: saved, loaded, generating.

    griffin bench full-size --out docs/results      (or python -m griffin_lm.bench.full_size)

Each step runs in a process of its own. Memory is RssAnon, what the process holds that no file
backs, sampled every millisecond; the page cache of the weights' file is not in it.
"""

import argparse
import json
import multiprocessing
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from ..checkpoints import load_model, save_model
from ..errors import GriffinError
from ..models import build
from ..shapes import JSON

PRESET = "recurrentgemma-2b"
PROMPT, NEW = 64, 16  # tokens


class AnonymousMemory:
    """The largest RssAnon of this process while the `with` block runs, in bytes."""

    def __enter__(self) -> "AnonymousMemory":
        self.peak, self._on = 0, True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()

    def _watch(self) -> None:
        while self._on:
            with open("/proc/self/status") as status:
                kb = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
            self.peak = max(self.peak, kb * 1024)
            time.sleep(0.001)


def write(folder: str) -> JSON:
    """Random weights of the preset, saved as Hugging Face names them."""
    model = build(PRESET, seed=0, dtype=torch.bfloat16).requires_grad_(False)
    began = time.perf_counter()
    save_model(model, folder, "huggingface")
    seconds = time.perf_counter() - began
    size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    return {"parameters": sum(p.numel() for p in model.parameters()), "file_bytes": size} | {
        "save_seconds": seconds
    }


@torch.inference_mode()
def read(folder: str) -> JSON:
    """Loads, reads a prompt and generates greedily."""
    with AnonymousMemory() as before:
        time.sleep(0.01)
    with AnonymousMemory() as loading:
        began = time.perf_counter()
        model = load_model(folder, dtype=torch.bfloat16)
        load_seconds = time.perf_counter() - began
    weights = sum(p.nbytes for p in model.parameters())
    tokens = torch.randint(3, model.config.vocab, (1, PROMPT))
    steps: list[float] = []
    with AnonymousMemory() as generating:
        began = time.perf_counter()
        logits, state = model(tokens, logits="last")
        prompt_seconds = time.perf_counter() - began
        for _ in range(NEW):
            began = time.perf_counter()
            assert logits is not None and bool(logits.isfinite().all())
            logits, state = model(
                logits.argmax(-1)[:, None], state=state, logits="last", donate=True
            )
            steps.append(time.perf_counter() - began)
    return {
        "weights_bytes": weights,
        "load_seconds": load_seconds,
        "load_peak_over_weights": (loading.peak - before.peak) / weights,
        "generate_peak_over_weights": (generating.peak - before.peak) / weights,
        "state_bytes": state.nbytes,
        "prompt_tokens": PROMPT,
        "prompt_seconds": prompt_seconds,
        "new_tokens": NEW,
        "median_step_seconds": sorted(steps)[NEW // 2],
    }


def apart(step: Callable[[str], JSON], folder: str) -> JSON:
    """The step's figures, from a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step, (folder,))


def page(figures: JSON) -> str:
    """The figures as a page of Markdown."""
    rows = {
        "parameters": f"{figures['parameters']:,}",
        "file": f"{figures['file_bytes'] / 1e9:.3f} GB, saved in {figures['save_seconds']:.1f} s",
        "load": f"{figures['load_seconds']:.1f} s",
        "memory at most while loading": f"{figures['load_peak_over_weights']:.3f} x the weights",
        "memory at most while generating": f"{figures['generate_peak_over_weights']:.3f} x",
        "state of a session": f"{figures['state_bytes'] / 1e6:.2f} MB",
        f"prompt of {figures['prompt_tokens']} tokens": f"{figures['prompt_seconds']:.2f} s",
        "one more token (median)": f"{figures['median_step_seconds']:.3f} s",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# RecurrentGemma-2B at full size, random bf16 weights

Made by `python -m griffin_lm.bench.full_size --out docs/results` on {figures["date"]}.
Machine: {figures["machine"]}. Memory is RssAnon over that of the process before it loaded.

| what | measured |
|---|---|
{table}

Not shown here: that the weights are right (see parity.md), and speed worth quoting. Other work ran
on the machine's two cores meanwhile, and the CPU kernels are not written yet.
"""


def measure(out: Path) -> JSON:
    """Measures, writes full_size.json and full_size.md into a folder, returns the figures."""
    if not Path("/proc/self/status").exists():
        raise GriffinError("this measurement reads /proc: run it on Linux")
    with tempfile.TemporaryDirectory(prefix="griffin-2b-") as folder:
        figures = apart(write, f"{folder}/model") | apart(read, f"{folder}/model")
    figures["date"] = date.today().isoformat()
    figures["machine"] = (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__}, CPU capability {torch.backends.cpu.get_cpu_capability()}"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "full_size.json").write_text(json.dumps(figures, indent=1) + "\n")
    (out / "full_size.md").write_text(page(figures))
    return figures


def main() -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    print(page(measure(parser.parse_args().out)))


if __name__ == "__main__":
    main()
