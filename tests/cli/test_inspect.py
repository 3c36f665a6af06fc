"""`griffin inspect` and `griffin doctor`: figures that agree with the model itself."""

import json

import pytest
import torch

import griffin_lm as griffin


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


def test_doctor_says_of_everything_whether_it_can_serve(run, tmp_path) -> None:
    result = run("doctor", "--json", tmp_path / "json")
    assert result.code == 0
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["versions"]["torch"] == torch.__version__
    assert figures["backends"]["reference"] == "ready"
    assert all(row == "ready" or row.startswith("no: ") for row in figures["backends"].values())
    assert "cpu" in figures["devices"] and "auto" in figures["devices"]
