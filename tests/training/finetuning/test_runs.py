"""Whole runs: they learn, go on to the bit, refuse what they did not begin with."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import griffin_lm as griffin
from griffin_lm.errors import ConfigError, DataError, TrainingError
from griffin_lm.training.finetuning import lora
from griffin_lm.training.finetuning.config import FinetuneConfig
from griffin_lm.training.finetuning.preview import fitted, mask_preview
from griffin_lm.training.finetuning.run import Prepared
from griffin_lm.training.resume import Saver, load, newest
from tests.inference.vocabulary import vocabulary
from tests.training.finetuning.conftest import FAMILIES

Begin = Callable[..., Prepared]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def settled(content: dict[str, Any]) -> dict[str, Any]:
    """What must not differ between two runs: all but the clock."""
    return content | {"progress": content["progress"] | {"seconds": 0.0}}


@pytest.mark.parametrize(
    ("adapter", "quantize"),
    [
        pytest.param(True, None, id="lora"),
        pytest.param(True, "int4", id="qlora", marks=pytest.mark.slow),
        pytest.param(False, None, id="full"),
    ],
)
def test_twenty_steps_are_ten_a_kill_and_ten_to_the_bit(
    begin: Begin, small: FinetuneConfig, tmp_path: Path, adapter: bool, quantize: str | None
):
    config = replace(small, steps=20, rows=1, accumulate=2, dropout=0.3 if adapter else 0.0)
    config = replace(config, targets=("linear_x", "v", "down"))  # some, for speed
    options = {"adapter": adapter, "quantize": quantize}
    whole = begin(config, out=tmp_path / "whole", **options).tuner
    for _ in range(20):
        whole.step()
    half = begin(config, out=tmp_path / "half", **options).tuner
    for _ in range(10):
        half.step()
    Saver(tmp_path / "half", keep=2, background=False).save(10, half.to_dict())
    torch.manual_seed(99)  # as a new process: nothing of the old one is left
    other = begin(config, out=tmp_path / "half", **options).tuner
    path = newest(tmp_path / "half")
    assert path is not None
    other.restore(load(path))
    for _ in range(10):
        other.step()
    assert same(settled(whole.to_dict()), settled(other.to_dict()))
    assert len(whole.to_dict()["optimizer"]["state"]) == len(whole.to_dict()["model"])


def test_a_lora_runs_checkpoint_holds_the_adapter_alone(begin: Begin, small: FinetuneConfig):
    run = begin(small)
    content = run.tuner.to_dict()
    assert run.targets is not None
    assert set(content["model"]) == {
        f"{name.rpartition('.')[0]}.lora_{side}.default.weight"
        for name in run.targets.adapted
        for side in "AB"
    }


def test_a_run_is_not_resumed_on_other_weights(begin: Begin, small: FinetuneConfig, tmp_path: Path):
    run = begin(small)
    content = run.tuner.to_dict()
    other = griffin.build(run.base.lm.config, seed=5)
    griffin.save(griffin.LanguageModel(other, vocabulary()), tmp_path / "other")
    again = begin(small, folder=tmp_path / "other").tuner
    with pytest.raises(TrainingError, match=r"fine-tunes weights with the fingerprint \w{12}, and"):
        again.restore(content)


@pytest.mark.parametrize(
    ("changed", "said"), [({"rank": 4}, "rank: 3 there, 4 here"), ({"gates": True}, "adapted")]
)
def test_a_run_is_not_resumed_with_another_adapter(
    begin: Begin, small: FinetuneConfig, changed: dict[str, Any], said: str
):
    content = begin(small).tuner.to_dict()
    with pytest.raises(TrainingError, match=said):
        begin(replace(small, **changed)).tuner.restore(content)


def test_a_run_of_another_model_names_the_fields(begin: Begin, small: FinetuneConfig):
    content = begin(small, "tiny-llama").tuner.to_dict()
    with pytest.raises(TrainingError, match="is of another model"):
        begin(small).tuner.restore(content)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_by_an_adapter_and_serves_it(
    begin: Begin, small: FinetuneConfig, family: str, folders: dict[str, Path]
):
    run = begin(replace(small, steps=12, rank=8, peak_rate=3e-2), family)
    before = {n: p.clone() for n, p in run.base.lm.model.named_parameters() if not p.requires_grad}
    losses = [run.tuner.step().loss for _ in range(12)]
    assert losses[-1] < losses[0] - 0.3
    frozen = {n: p for n, p in run.base.lm.model.named_parameters() if not p.requires_grad}
    assert same(before, frozen)
    (folder,) = run.finish(merge=False)
    lm = griffin.load(folders[family], dtype="float32", adapter=folder.parent)  # the run's folder
    tokens = torch.randint(3, 380, (1, 7))
    with torch.no_grad():
        mine, beside = lm.model(tokens)[0], run.base.lm.model.eval()(tokens)[0]
    torch.testing.assert_close(mine, beside, rtol=1e-5, atol=1e-4)


def test_all_weights_learn_and_become_a_model(begin: Begin, small: FinetuneConfig):
    run = begin(replace(small, steps=10), adapter=False)
    losses = [run.tuner.step().loss for _ in range(10)]
    assert losses[-1] < losses[0] - 0.3
    (folder,) = run.finish(merge=False)
    lm = griffin.load(folder, dtype="float32")
    assert same(dict(lm.model.named_parameters()), dict(run.base.lm.model.named_parameters()))
    assert lm.instruction_tuned  # it was taught turns


def test_a_merged_run_equals_its_adapter(
    begin: Begin, small: FinetuneConfig, folders: dict[str, Path]
):
    run = begin(small)
    run.tuner.step()
    adapter, merged = run.finish(merge=True)
    beside = griffin.load(folders["tiny-griffin"], dtype="float32", adapter=adapter).model
    inside = griffin.load(merged, dtype="float32").model
    assert same(dict(inside.named_parameters()), dict(beside.named_parameters()))


def test_one_example_a_row_learns_what_packed_rows_do(begin: Begin, small: FinetuneConfig):
    run = begin(replace(small, pack=False))
    batch = run.tuner.feed.take(0.0)
    assert batch.starts.sum(1).tolist() == [1, 1]
    packed = begin(small).tuner.feed.take(0.0)
    assert packed.starts.sum() > 2


def test_the_mask_is_shown_token_by_token_without_colour(begin: Begin, small: FinetuneConfig):
    run = begin(small)
    console = Console(width=200, record=True, color_system=None)
    run.describe(console)
    text = console.export_text()
    shown = text.splitlines()[1]
    row = run.examples
    assert (
        shown.count("|") == row.size(0) - 1 and shown.startswith("<s>|") and shown.endswith("</s>»")
    )
    inside = shown.partition("«")[2].rstrip("»").split("|")
    assert len(inside) == int(row.counts(0, 0, row.size(0)).sum())
    for said in ("rows,", "of them answers", "are trained", "memory:", "adapted:", "not adapted:"):
        assert said in text


def test_several_answers_of_one_conversation_each_stand_within_marks(begin, small, tmp_path: Path):
    talk = [("user", "Where is the key?"), ("assistant", "beneath"), ("user", "and the door"),
            ("assistant", "of iron")]  # fmt: skip
    row = {"messages": [{"role": role, "content": text} for role, text in talk]}
    data = tmp_path / "talk.jsonl"
    data.write_text(json.dumps(row) + "\n")
    run = begin(small, data=data)
    shown = mask_preview(run.examples, 0, vocabulary(), 200).plain
    assert shown.count("«") == shown.count("»") == 2
    assert shown.count("<end>»") == 2 and "<user>|" in shown


def test_rows_cut_before_their_answer_are_counted_and_left_out(
    begin: Begin, small: FinetuneConfig, rows: Path
):
    run = begin(small)
    short = replace(small, length=20)
    cut = begin(short)
    assert cut.summary.cut > 0 and 0 < cut.summary.lost < len(run.examples)
    assert cut.summary.rows == len(cut.examples) == len(run.examples) - cut.summary.lost
    assert not cut.examples.unanswered(20)
    assert f"{cut.summary.lost} of them lose every answer" in "\n".join(cut.summary.lines())
    split, summary = fitted(run.examples, replace(short, split="split"))
    assert summary.lost == 0 and len(split) == len(run.examples)
    with pytest.raises(DataError, match=r"no row has an answer within the first 2 tokens"):
        begin(replace(small, length=2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ('{"prompt": "a", "completion": " "}\n', "no row with an answer in it"),
        ('{"prompt": "a"}\n' * 12, r"more than 10 malformed lines(.|\n)*rows\.jsonl, line 1: has"),
        ('{"messages": [{"role": "user", "content": "?"}]}\n', "line 1: has no model turn"),
    ],
)
def test_rows_that_cannot_be_used_are_named(
    begin: Begin, small: FinetuneConfig, tmp_path: Path, text: str, said: str
):
    data = tmp_path / "rows.jsonl"
    data.write_text(text)
    with pytest.raises(DataError, match=said):
        begin(small, data=data)


def test_malformed_lines_within_the_limit_are_counted(
    begin: Begin, small: FinetuneConfig, rows: Path, tmp_path: Path
):
    data = tmp_path / "rows.jsonl"
    data.write_text(rows.read_text() + "{not json\n")
    run = begin(small, data=data)
    assert "1 malformed lines were left out" in run.summary.lines()


def test_an_adapter_that_is_passed_by_ends_the_run_before_its_first_step(
    begin: Begin, small: FinetuneConfig
):
    run = begin(small)
    gate: Any = run.base.lm.model.layers[0].mlp.gate
    gate.forward = gate.base_layer.forward  # as if the adapter were not there
    with pytest.raises(TrainingError, match=r"layers\.0\.mlp\.gate"):
        run.tuner.step()
    assert run.tuner.steps == 0
    assert run.targets is not None
    assert not any(
        bool(b.any()) for _, b in lora.factors(run.tuner.learned(), run.targets).values()
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adapter": False, "dtype": "bfloat16"}, "all weights are trained in float32"),
        ({"adapter": False, "quantize": "int8"}, "rounded weights are frozen"),
    ],
)
def test_all_weights_are_not_trained_in_what_cannot_hold_small_steps(
    begin: Begin, small: FinetuneConfig, options: dict[str, Any], said: str
):
    with pytest.raises(ConfigError, match=said):
        begin(small, **options)


def test_epochs_become_tokens_and_a_config_knows_its_limits(begin: Begin, small: FinetuneConfig):
    run = begin(replace(small, steps=0, epochs=2.0))
    assert run.config.tokens == 2 * run.summary.inputs
    for wrong in ({"rank": 0}, {"dropout": 1.0}, {"epochs": 0.0}, {"model": "tiny-hawk"}):
        with pytest.raises(ConfigError):
            replace(small, **wrong)
