"""`griffin bench finetune`: its rows, its judge, its section; and the whole on a few rows."""

import json
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.bench import finetuning
from griffin_lm.bench.finetuning import LLAMA, Options, measure, section
from griffin_lm.errors import DataError
from griffin_lm.training.data.examples import Examples
from griffin_lm.training.data.rows import Example

SOLUTION = "First 2*3 = <<2*3=6>>6 eggs.\nSo she has {n}+6 = <<{n}+6={m}>>{m} eggs.\n#### {m}"


@pytest.fixture
def sft(tmp_path: Path) -> Path:
    """Files laid out as GSM8K's; in one row in five the last line lacks the answer."""
    for split, count in (("train", 20), ("test", 10)):
        rows = [SOLUTION.format(n=n, m=n + 6) for n in range(10, 10 + count)]
        rows = [r if i % 5 else r.replace("eggs.\n####", "eggs.\nDone.\n####")
                for i, r in enumerate(rows)]  # fmt: skip
        text = "".join(json.dumps({"question": "?", "answer": row}) + "\n" for row in rows)
        (tmp_path / f"gsm8k_{split}.jsonl").write_text(text)
    return tmp_path


def test_an_answer_is_exact_only_if_every_token_is():
    model = griffin.build(LLAMA, seed=0)
    prompts = torch.randint(3, 2048, (3, 5)).tolist()
    examples: list[Example] = []
    for place, ids in enumerate(prompts):
        ids = ids[: 3 + place]  # of several lengths in one batch
        said: list[int] = []
        for _ in range(3):
            logits, _ = model(torch.tensor([ids + said]), logits="last")
            assert logits is not None
            said.append(int(logits.argmax()))
        if place == 2:
            said[-1] ^= 1
        examples.append(Example(ids + said, [False] * len(ids) + [True] * 3))
    judged = finetuning._judge(model, Examples(examples))
    assert judged["exact"] == round(2 / 3, 4) and judged["loss"] > 0


@pytest.mark.slow
def test_both_models_are_tuned_in_three_ways(sft: Path):
    figures = measure(sft, Options(test=8, epochs=1.0, pretraining_epochs=1.0), lambda _: None)
    assert figures["task"]["train"] == 16 and figures["task"]["left_out"]["train"] == 4
    assert figures["task"]["last_number"] == 1.0
    arms = [(m["name"], a["arm"], a["trained"] < m["parameters"])
            for m in figures["models"] for a in m["arms"]]  # fmt: skip
    assert [arm[1] for arm in arms] == ["full", "lora", "qlora"] * 2
    assert [arm[2] for arm in arms] == [False, True, True] * 2
    page = section(json.loads(json.dumps(figures)))
    assert page.startswith("## ") and page.count("| QLoRA (int4 base), rank 16 |") == 2


def test_the_section_is_made_of_the_figures():
    arm = {
        "arm": "lora", "trained": 10, "rank": 4, "tokens": 99, "seconds": 30.0,
        "before": {"loss": 3.0, "exact": 0.0}, "after": {"loss": 0.125, "exact": 0.75},
    }  # fmt: skip
    figures = {
        "command": "griffin bench finetune sft", "machine": {"processor": "a processor"},
        "task": {"train": 5, "test": 4, "last_number": 0.5, "example": ["2 = 2", "2"]},
        "options": {"epochs": 2.0},
        "models": [{"name": "m", "parameters": 20, "origin": "bundled", "arms": [arm]}],
    }  # fmt: skip
    page = section(figures)
    assert "| m (20) | LoRA, rank 4 | 10 | 3.00 | 0.125 | 0.0% | 75.0% | 99 | 0.5 |" in page
    assert "`griffin bench finetune sft`" in page and "- m: bundled." in page


def test_without_the_files_the_folder_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"there is no .*gsm8k_train\.jsonl; give the folder"):
        measure(tmp_path, Options(), lambda _: None)
