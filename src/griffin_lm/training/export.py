"""A training run becomes a checkpoint: `python -m griffin_lm.training.export RUN CHECKPOINT`.

RUN is the folder of `griffin pretrain --out`. Weights are rounded to bfloat16; what the run was is
written beside them as `training.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import save_model
from ..errors import GriffinError, TrainingError
from ..evals.report import machine
from ..models import Griffin, ModelConfig
from ..text import load_tokenizer
from .resume import load, newest


def export(run: Path, folder: Path, card: str | None = None) -> dict[str, Any]:
    """Writes the run's latest weights and its tokenizer; returns the facts of the run."""
    path = newest(run)
    if path is None:
        raise TrainingError(f"{run} holds no checkpoint; give the --out of a pretrain run")
    saved = load(path)
    model = Griffin(ModelConfig.from_dict(saved["config"]), "cpu", torch.float32)
    model.load_state_dict(saved["model"])
    tokenizer = load_tokenizer(run)
    course: dict[str, Any] = saved["feed"].get("course", {})
    about = {"instruction_tuned": True} if course else {}
    save_model(model.to(torch.bfloat16), folder, tokenizer=tokenizer, card=card, about=about)
    progress = saved["progress"]
    facts: dict[str, Any] = {
        "steps": progress["steps"],
        "tokens": progress["tokens"],
        "seconds": round(progress["seconds"]),
        "machine": machine(),
    }
    if course:
        facts |= {"longest_gap": course["longest"], "fields": course["fields"]}
    index_file = run / "tokens" / "index.json"
    if index_file.exists():  # fledgling's books
        index = json.loads(index_file.read_text())
        facts |= {
            "train_books": len(index["train"]),
            "train_bytes": sum(index["train"].values()),
            "held_out": index["held_out"],
        }
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


if __name__ == "__main__":
    try:
        print(json.dumps(export(Path(sys.argv[1]), Path(sys.argv[2])), indent=1))
    except IndexError:
        sys.exit("usage: python -m griffin_lm.training.export RUN CHECKPOINT")
    except GriffinError as error:
        sys.exit(str(error))
