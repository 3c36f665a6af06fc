"""Ray Train starts the processes and joins them; the run is the one of a single process."""

import csv
from pathlib import Path

import pytest

from griffin_lm.training.config import load_recipe
from griffin_lm.training.pretraining import pretrain
from griffin_lm.training.resume import newest, shards
from tests.ray_local import finished
from tests.training.distributed.launch import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE = """
from dataclasses import replace
from griffin_lm.models import PRESETS
from tests.training.distributed.runs import config

def recipe():
    model = replace(PRESETS["tiny-griffin"], vocab=2048)
    return config(ROWS, model=model, steps=4, log_every=1)
"""


def losses(run: Path) -> list[float]:
    rows = csv.DictReader((run / "log.csv").read_text(encoding="utf-8").splitlines())
    return [float(row["loss"]) for row in rows]


def test_two_workers_of_ray_train_go_where_one_process_goes(data: Path, tmp_path: Path):
    pytest.importorskip("ray.train.torch", reason="needs the extra `ray`")
    for name, rows in (("many", "2"), ("one", "4")):
        (tmp_path / f"{name}.py").write_text(RECIPE.replace("ROWS", rows))
    words = [str(data), str(tmp_path / "many"), str(tmp_path / "many.py")]
    program = ROOT / "tests" / "training" / "distributed" / "ray_run.py"
    finished(tmp_path / "log.txt", program, *words)
    path = newest(tmp_path / "many")
    assert path is not None and path.name == "step-4" and shards.are_in(path)
    pretrain(load_recipe(tmp_path / "one.py"), data, tmp_path / "one", False, "cpu")
    assert losses(tmp_path / "many") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert len(losses(tmp_path / "many")) == 4
