"""`griffin inspect` and `griffin doctor`: figures that agree with the model itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from tests.checkpoints.header_only import write_nine
from tests.checkpoints.helpers import TINY


def test_inspect_counts_what_the_model_has(run, checkpoint, tmp_path) -> None:
    result = run("inspect", checkpoint, "--json", tmp_path / "json")
    assert result.code == 0
    figures = json.loads((tmp_path / "json").read_text())
    lm = griffin.load(checkpoint, dtype="float32", device="cpu")
    assert figures["config"] == json.loads(json.dumps(lm.config.to_dict()))
    count = sum(parameter.numel() for parameter in lm.model.parameters())
    assert figures["parameters"] == count == sum(figures["parts"].values())
    assert figures["memory"]["float32"]["weights"] == 4 * count
    assert figures["memory"]["float32"]["state_per_sequence"] == lm.model.empty_state(1).nbytes
    half = griffin.build(lm.config, dtype=torch.bfloat16)
    assert figures["memory"]["bfloat16"]["state_per_sequence"] == half.empty_state(1).nbytes
    assert figures["files"]["format"] == "griffin"
    assert figures["files"]["dtypes"]["F32"]["bytes"] == 4 * count
    assert f"{count:,}" in result.out


def test_inspect_takes_a_preset_without_anything_on_disk(run, tmp_path) -> None:
    assert run("inspect", "recurrentgemma-2b", "--json", tmp_path / "json").code == 0
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["path"] is None
    assert figures["parameters"] == 2_682_862_080  # RecurrentGemma report, table 1: 2.68B
    # 18 recurrent layers: h in fp32 and three taps of the conv
    recurrent = 18 * 2560 * (4 + 3 * 2)
    assert figures["memory"]["bfloat16"]["state_of_recurrent_layers"] == recurrent


@pytest.mark.parametrize("config", ["tiny-hawk", '{"layers": 2}'])
def test_inspect_shows_another_config_when_asked(run, checkpoint, tmp_path, config: str) -> None:
    assert run("inspect", checkpoint, "--config", config, "--json", tmp_path / "json").code == 0
    shown = json.loads((tmp_path / "json").read_text())["config"]
    assert shown["layers"] == (2 if config.startswith("{") else 5)


def test_inspect_reads_no_weights(run, checkpoint, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr("griffin_lm.checkpoints.tensors.TensorFile.get", refuse)
    assert run("inspect", checkpoint).code == 0


@pytest.mark.parametrize("form", [form for form in griffin.FORMATS if form != "griffin"])
def test_inspect_knows_every_format(run, tmp_path, form: str) -> None:
    config = replace(TINY, logit_cap=30.0)
    griffin.save(griffin.build(config), tmp_path / "m", format=form)
    assert run("inspect", tmp_path / "m", "--json", tmp_path / "json").code == 0
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["files"]["format"] == form
    assert figures["config"] == json.loads(json.dumps(config.to_dict()))
    assert sum(row["bytes"] for row in figures["files"]["dtypes"].values()) == (
        4 * figures["parameters"]
    )


def test_inspect_tells_a_base_model_from_an_instruction_tuned_one(run, checkpoint) -> None:
    assert "base model" in run("inspect", checkpoint).out
    assert "instruction-tuned" in run("inspect", "fledgling").out


def test_inspect_tells_what_is_at_hand_and_what_would_fit(run, checkpoint, tmp_path) -> None:
    result = run("inspect", checkpoint, "--json", tmp_path / "json")
    figures = json.loads((tmp_path / "json").read_text())
    assert 0 < figures["at_hand"]["free"] <= figures["at_hand"]["total"]
    assert figures["at_hand"]["fits"] == {"float32": True, "bfloat16": True}
    assert "fits as float32 and bfloat16" in result.out
    quantised = figures["weights_if_quantised"]
    assert 0 < quantised["int4"] < quantised["int8"] < figures["memory"]["bfloat16"]["weights"]
    assert "quantised weights (--quantize)" in result.out


def test_inspect_of_a_quantised_checkpoint_tells_bytes_by_type(run, checkpoint, tmp_path) -> None:
    convert = ("convert", checkpoint, tmp_path / "q", "--format", "griffin", "--quantize", "int4")
    assert run(*convert).code == 0
    result = run("inspect", tmp_path / "q", "--json", tmp_path / "json")
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "json").read_text())
    types = figures["weight_types"]
    assert sum(row["parameters"] for row in types.values()) == figures["parameters"]
    # 4.5 bits a weight, and what fills up panels of 16 rows and groups of 32 columns
    assert 4.5 <= types["int4"]["bits_per_weight"] < 10
    stored = sum(row["bytes"] for row in figures["files"]["dtypes"].values())
    assert sum(row["bytes"] for row in types.values()) == stored
    assert "int4" in result.out and "bits a weight" in result.out


def test_inspect_of_a_9b_reads_headers_alone(run, tmp_path) -> None:
    folder = write_nine(tmp_path / "recurrentgemma-9b")
    before = anonymous()
    result = run("inspect", folder, "--json", tmp_path / "json")
    assert result.code == 0, result.err
    assert anonymous() - before < 100e6
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["parameters"] == 8_579_977_216
    assert figures["config"] == json.loads(
        json.dumps(griffin.PRESETS["recurrentgemma-9b"].to_dict())
    )
    memory = figures["memory"]["bfloat16"]
    assert memory["weights"] == 17_159_954_432 == figures["files"]["dtypes"]["BF16"]["bytes"]
    assert memory["state_per_sequence"] == 26_230_801
    assert memory["to_load"] == 17_159_954_432 + 2 * 256_000 * 4096
    shards = [name for name in figures["files"]["files"] if name.endswith(".safetensors")]
    assert len(shards) == 4 and "8,579,977,216" in result.out


def anonymous() -> int:
    """Bytes of memory of this process that no file backs; 0 where the system does not tell."""
    try:
        rows = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("RssAnon"))


def test_doctor_says_of_everything_whether_it_can_serve(run, tmp_path) -> None:
    result = run("doctor", "--json", tmp_path / "json")
    assert result.code == 0
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["versions"]["torch"] == torch.__version__
    assert figures["backends"]["reference"] == "ready"
    assert all(row == "ready" or row.startswith("no: ") for row in figures["backends"].values())
    assert "cpu" in figures["devices"] and "auto" in figures["devices"]
