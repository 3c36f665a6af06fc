"""Measures how far our logits are from other people's, and writes docs/results/parity.{md,json}.

    python tests/make_parity_page.py [FOLDER]

Runs the tests that call `record_parity` (tests/parity.py) and sets down each one's largest error
beside its tolerance, the versions and the machine. If one fails, exits with pytest's status and
leaves the page as it was.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/golden/test_deepmind.py",
    "tests/golden/test_deepmind_checkpoints.py",
    "tests/checkpoints/test_every_pair.py",
    "tests/checkpoints/test_model_types.py",
    "tests/checkpoints/test_meta.py",
    "tests/models/test_transformers_parity.py",
    "tests/models/test_model_call.py",
    "tests/models/test_state.py",
    "tests/models/test_every_kind.py",
    "tests/models/test_mamba_parity.py",
    "tests/models/test_gemma_llama_parity.py",
    "tests/models/test_growing_state.py",
    "tests/models/test_mqa_definition.py",
    "tests/mixers/test_global_attention.py",
    "tests/mixers/test_gru.py",
    "tests/mixers/test_lru.py",
    "tests/mixers/test_s6.py",
    "tests/mixers/test_rg_lru_complex.py",
    "tests/ops/test_linear_scan.py",
    "tests/ops/test_rg_lru.py",
    "tests/ops/test_selective_scan.py",
)
SOURCES = (
    "DeepMind",
    "DeepMind's files",
    "formats",
    "transformers",
    "torch.nn.GRU",
    "itself",
    "float64 definition",
)
COMMAND = "python tests/make_parity_page.py"


def measure() -> list[dict[str, Any]]:
    """Rows {"check", "error", "tolerance"} of the tests; ends the program if one of them fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *TESTS],
            cwd=ROOT,
            env=os.environ | {"GRIFFIN_PARITY_JSON": str(path)},
        )
        if run.returncode:
            raise SystemExit(run.returncode)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {row["check"].split(" | ")[0] for row in rows}
    if found != set(SOURCES):  # a test file that was skipped is no proof
        raise SystemExit(f"wanted rows of {SOURCES}, got {sorted(found)}: is transformers there?")
    # a property checked on many inputs has one row: that of its largest error
    largest: dict[str, dict[str, Any]] = {}
    for row in rows:
        known = largest.setdefault(row["check"], row)
        known["error"] = max(known["error"], row["error"])
    return list(largest.values())


def machine() -> str:
    """The processor and how many threads torch used."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.split(":", 1)[1].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else ())
        if line.startswith("model name")
    ]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, threads: {torch.get_num_threads()}, {platform.system()}"


def sources() -> dict[str, str]:
    """Versions: of what ran here, and of what made the golden files."""
    data = sorted((ROOT / "tests/golden/data").glob("deepmind-*.npz"))
    with np.load(data[0]) as file:
        made = json.loads(str(file["about"]))["versions"]
    ran = {name: version(name) for name in ("griffin-lm", "torch", "transformers")}
    ran["python"] = platform.python_version()
    return ran | {f"{name} (golden files)": number for name, number in made.items()}


def golden_models() -> list[str]:
    """A line for each of the models in the golden files."""
    lines: list[str] = []
    for path in sorted((ROOT / "tests/golden/data").glob("deepmind-*.npz")):
        with np.load(path) as file:
            config = json.loads(str(file["config"]))
        settings = ", ".join(f"{key} {value}" for key, value in config.items())
        lines.append(f"- {path.stem.removeprefix('deepmind-')}: {settings}")
    return lines


def page(report: dict[str, Any]) -> str:
    """The report in Markdown: a row per check."""
    rows = report["rows"]
    worst: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["error"]):
        worst[row["check"].split(" | ")[0]] = row
    lines = [
        "# Parity",
        "",
        "The largest absolute difference of a logit, in fp32 on the CPU, on tiny models with",
        "random weights (all of them, biases, norms and decays too; logits reach about 5). What",
        "each check does is said in " + ", ".join(TESTS) + ".",
        '"itself" compares our own calls with each other: chunked with whole, batched with single.',
        '"DeepMind\'s files" are checkpoints that their package and Orbax wrote; "formats"',
        "compares every tensor of a model with itself after a way from one format through another,",
        "and the logits of a model loaded or saved with those of the program whose format it is.",
        "",
        f"Made by `{COMMAND}` on {report['date']}; {report['machine']}.",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()) + ".",
        "",
        "| against | checks | largest error | tolerance | where |",
        "|---|---|---|---|---|",
    ]
    for who, row in sorted(worst.items()):
        checks = sum(other["check"].split(" | ")[0] == who for other in rows)
        where = row["check"].split(" | ", 1)[1].replace(" | ", ": ")
        lines.append(
            f"| {who} | {checks} | {row['error']:.1e} | {row['tolerance']:.0e} | {where} |"
        )
    for who in sorted(worst):
        lines += ["", f"## {who}", ""]
        if who == "DeepMind":
            lines += [*golden_models(), ""]
        lines += ["| model | check | largest error |", "|---|---|---|"]
        for row in rows:
            source, model, check = row["check"].split(" | ")
            if source == who:
                lines.append(f"| {model} | {check} | {row['error']:.1e} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs/results")
    folder = parser.parse_args().folder
    report = {
        "command": COMMAND,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": sources(),
        "rows": measure(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parity.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "parity.md").write_text(page(report), encoding="utf-8")
    print(f"{len(report['rows'])} checks written to {folder / 'parity.md'}")
