"""The model on a GPU against the model on the CPU: `make gpu-check`.

Needs no installation and no pytest: any Python that has torch and the package's small dependencies.
Prints a table, and writes JSON to $OUT (or build/). Exits 1 where a check fails, or where there is
no GPU.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

try:
    import torch

    import griffin_lm as griffin
except ModuleNotFoundError as missing:
    sys.exit(
        f"gpu-check: {sys.executable} has no {missing.name}; name one: make gpu-check PYTHON=..."
    )

EXACT = 1e-5  # fp32, other shapes of the same products
OTHER_DEVICE = 2e-5  # fp32, other kernels
HALF = 0.25  # bf16 against fp32, on logits of size 3 or so


def text(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random tokens, on the CPU."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 96, (rows, length), generator=random)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference; inf where something is not finite."""
    error = (one.detach().cpu().double() - other.detach().cpu().double()).abs().max()
    return float(error) if bool(error.isfinite()) else float("inf")


def pair(name: str) -> tuple[griffin.Griffin, griffin.Griffin]:
    """The same weights on the CPU and on the GPU, in fp32."""
    return griffin.build(name, seed=5), griffin.build(name, seed=5, device="cuda")


def as_on_the_cpu(name: str) -> float:
    """Logits of both devices, more tokens than the window has."""
    here, there = pair(name)
    tokens = text(3, 50)
    return apart(here(tokens)[0], there(tokens.cuda())[0])


def gradients_as_on_the_cpu(name: str) -> float:
    """The largest difference of a gradient, relative to that parameter's largest."""
    here, there = pair(name)
    tokens = text(2, 40)
    for model, given in ((here, tokens), (there, tokens.cuda())):
        model(given)[0].logsumexp(-1).mean().backward()
    both = zip(here.parameters(), there.parameters(), strict=True)
    errors = []
    for mine, theirs in both:
        assert mine.grad is not None and theirs.grad is not None
        scale = max(float(mine.grad.abs().max()), 1e-6)
        errors.append(apart(mine.grad, theirs.grad) / scale)
    return max(errors)


def chunks_are_the_whole(name: str) -> float:
    """Cut into 1, 7, 20 and the rest, the state handed on."""
    _, model = pair(name)
    tokens = text(2, 60).cuda()
    whole, _ = model(tokens)
    state, pieces = None, []
    for part in tokens.split([1, 7, 20, 32], dim=1):
        logits, state = model(part, state=state, donate=state is not None)
        pieces.append(logits)
    return apart(torch.cat(pieces, 1), whole)


def gaps_are_taken_out(name: str) -> float:
    """Invalid tokens anywhere: as if they were not there."""
    _, model = pair(name)
    tokens = text(1, 40).cuda()
    valid = (torch.arange(40, device="cuda") % 3 != 1)[None]
    kept, _ = model(tokens, valid=valid)
    alone, _ = model(tokens[valid][None])
    return apart(kept[valid], alone[0])


def documents_stay_apart(name: str) -> float:
    """Two documents in a row: each as by itself."""
    _, model = pair(name)
    tokens = text(1, 40).cuda()
    starts = torch.zeros_like(tokens, dtype=torch.bool)
    starts[0, 17] = True
    packed, _ = model(tokens, starts=starts)
    return apart(packed[:, 17:], model(tokens[:, 17:])[0])


def bf16_is_near_fp32(name: str) -> float:
    """The same weights in bf16."""
    _, model = pair(name)
    tokens = text(2, 40).cuda()
    exact, _ = model(tokens)
    return apart(model.bfloat16()(tokens)[0], exact)


CHECKS: tuple[tuple[Callable[[str], float], float], ...] = (
    (as_on_the_cpu, OTHER_DEVICE),
    (gradients_as_on_the_cpu, 1e-4),
    (chunks_are_the_whole, EXACT),
    (gaps_are_taken_out, EXACT),
    (documents_stay_apart, EXACT),
    (bf16_is_near_fp32, HALF),
)


def main() -> int:
    """0 if all checks pass."""
    if not torch.cuda.is_available():
        print("gpu-check: torch sees no CUDA device here; nothing was checked", file=sys.stderr)
        return 1
    torch.backends.cuda.matmul.allow_tf32 = False
    rows: list[dict[str, Any]] = []
    for model in ("tiny-griffin", "tiny-hawk"):
        for check, tolerance in CHECKS:
            begin = time.perf_counter()
            try:
                error, failure = check(model), ""
            except Exception as problem:  # a table with a hole says more than a traceback
                error, failure = float("inf"), f"{type(problem).__name__}: {problem}"
            row = {
                "check": check.__name__,
                "model": model,
                "error": error,
                "tolerance": tolerance,
                "passed": error <= tolerance,
                "seconds": round(time.perf_counter() - begin, 3),
                "failure": failure,
            }
            rows.append(row)
            verdict = "ok" if row["passed"] else f"FAILED {failure}"
            print(f"{check.__name__:26} {model:13} {error:9.1e} <= {tolerance:.0e}  {verdict}")
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    out = Path(os.environ.get("OUT") or ROOT / "build")
    out.mkdir(parents=True, exist_ok=True)
    report = json.dumps({"machine": machine, "rows": rows}, indent=1, default=str)
    (out / "gpu-check.json").write_text(report)
    failed = sum(not row["passed"] for row in rows)
    print(f"{machine['device']}: {len(rows) - failed} of {len(rows)} checks passed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
