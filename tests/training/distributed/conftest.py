"""Text to train on, and what many processes made of it: started once, for all tests."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin_lm.inference import LanguageModel, save
from griffin_lm.inference.loading import BUNDLED
from griffin_lm.models import PRESETS, build
from griffin_lm.text import load_tokenizer
from griffin_lm.training.batch import World
from griffin_lm.training.data.prepare import prepare
from griffin_lm.training.resume import Saver
from tests.training.conftest import WORDS
from tests.training.distributed.launch import torchrun
from tests.training.distributed.runs import opened, trained

WORKER = ("-m", "tests.training.distributed.worker")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred texts of 5 to 120 words, prepared."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    with (folder / "a.jsonl").open("w") as file:
        for _ in range(300):
            text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(5, 120)))
            file.write(json.dumps({"text": text}) + "\n")
    prepare(folder / "a.jsonl", load_tokenizer(BUNDLED["fledgling"]), folder / "data")
    tuning = folder / "tuning"  # a model and rows to fine-tune it with
    model = build(replace(PRESETS["tiny-griffin"], vocab=2048), seed=1)
    save(LanguageModel(model, load_tokenizer(BUNDLED["fledgling"])), tuning / "base")
    with (tuning / "rows.jsonl").open("w") as file:
        for _ in range(40):
            words = [draw.choice(WORDS) for _ in range(draw.randint(4, 30))]
            row = {"prompt": " ".join(words), "completion": " ".join(words[:3])}
            file.write(json.dumps(row) + "\n")
    return folder / "data"


@pytest.fixture(scope="session")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they found, a file a scenario."""
    out = tmp_path_factory.mktemp("two")
    one_process(data, out / "resharded" / "from-1")
    names = ("equal", "precision", "saved", "broken", "signalled", "resharded", "finetuned")
    ended = torchrun(2, *WORKER, str(data), str(out), *names)
    assert ended.code == 0, ended.text
    return out


def one_process(data: Path, out: Path) -> dict[str, Any]:
    """Two steps of one process and their checkpoint; weights and moments."""
    run = opened(data, out, World(), torch.float32)
    found = trained(run, 2)
    Saver(out, 1, background=False).save(2, run.to_dict())
    return found | {"then": [run.step().loss for _ in range(2)]}


def results(folder: Path, name: str) -> dict[str, Any]:
    """What a scenario found."""
    return torch.load(folder / f"{name}.pt", weights_only=False)  # made by this very test
