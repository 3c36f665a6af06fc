"""What fuzzing found in the readers of checkpoints, each with the smallest input that showed it."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from griffin_lm.checkpoints import load_model, read_config
from griffin_lm.errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch
from tests.checkpoints.helpers import Good, edit_json


def test_a_whole_number_that_no_float_holds_is_refused(good: Good) -> None:
    folder = good("griffin")
    edit_json(folder / "config.json", lambda c: c["model"].update(logit_cap=10**400))
    with pytest.raises(CheckpointCorrupt, match="logit_cap must be float"):
        read_config(folder)


def test_a_whole_number_that_no_machine_holds_is_refused(good: Good) -> None:
    folder = good("griffin")
    edit_json(folder / "config.json", lambda c: c["model"]["pattern"][2].update(head_dim=10**400))
    with pytest.raises(CheckpointCorrupt, match="head_dim cannot be as large"):
        read_config(folder)


@pytest.mark.parametrize("where", ["model", "mixer"])
def test_an_endless_name_of_a_setting_is_cut_in_the_message(where: str, good: Good) -> None:
    folder = good("griffin")

    def add(config: dict[str, Any]) -> None:
        model = config["model"]
        (model if where == "model" else model["pattern"][0])["x" * 10_000] = 1

    edit_json(folder / "config.json", add)
    with pytest.raises(CheckpointCorrupt, match="has no setting 'xxx") as caught:
        read_config(folder)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("setting", ["mlp_init", "mlp", "norm_weight"])
def test_an_endless_word_for_a_setting_is_cut_in_the_message(setting: str, good: Good) -> None:
    folder = good("griffin")
    edit_json(folder / "config.json", lambda c: c["model"].update({setting: "x" * 10_000}))
    with pytest.raises(CheckpointCorrupt, match=setting) as caught:
        read_config(folder)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", [["default"], {}, 3, True])
def test_a_kind_of_rotary_scaling_that_is_no_word_is_refused(kind: object, good: Good) -> None:
    folder = good("huggingface")
    edit_json(folder / "config.json", lambda c: c.update(rope_scaling={"rope_type": kind}))
    with pytest.raises(CheckpointError, match="rope_"):
        read_config(folder)


def test_more_layers_than_the_tensors_can_fill_are_refused_before_they_are_built(
    good: Good, tmp_path: Path
) -> None:
    """A layer takes 40 kB of Python objects before its first tensor is asked for."""
    folder = good("huggingface")
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    end = len(data) - 8 - length
    row = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    header |= {f"x{i}": row for i in range(3000)}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    edit_json(folder / "config.json", lambda config: config.update(num_hidden_layers=2900))
    tracemalloc.start()
    with pytest.raises(CheckpointMismatch, match="speaks of 2900 layers"):
        load_model(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * len(text)
