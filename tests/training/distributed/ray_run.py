"""Run as a program, DATA OUT RECIPE: the Ray Train run of docs/distributed.md with two workers."""

import sys
from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def train(settings: dict[str, Any]) -> None:
    """What each worker does."""
    from griffin_lm.training.config import load_recipe
    from griffin_lm.training.pretraining import pretrain

    recipe = load_recipe(Path(settings["recipe"]))
    code = pretrain(recipe, Path(settings["data"]), Path(settings["out"]), resume=True)
    assert code == 0, f"ended by signal {code - 128}; run again to go on"


if __name__ == "__main__":
    data, out, recipe = sys.argv[1:]
    TorchTrainer(
        train,
        train_loop_config={"data": data, "out": out, "recipe": recipe},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=f"{out}-ray"),
    ).fit()
