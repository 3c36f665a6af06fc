"""Every study in its smallest form, and each at scale smoke; what their figures are made of."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from griffin_lm.errors import InputError, TrainingError
from griffin_lm.studies import books_runs, recall, recall_runs, scaling, study, tokens
from griffin_lm.studies.architectures import sized
from griffin_lm.studies.compare import compare
from griffin_lm.studies.fit import Recipe, StepFeed, batch_of, fit, trainer_for
from griffin_lm.studies.registry import STUDIES
from griffin_lm.studies.study import SCALES, Place
from griffin_lm.studies.synthetic import TASKS, Task

PLACE = Place(torch.device("cpu"), None, lambda line: None)
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", sorted(set(STUDIES) - {"length"}))  # which has a file of its own
def test_every_study_runs_in_its_smallest_form(name: str, tmp_path: Path) -> None:
    found = compare(name, "tiny", tmp_path, PLACE, f"griffin compare {name}")
    assert found["cells"] and all("result" in cell for cell in found["cells"].values())
    page = (tmp_path / f"{name}.md").read_text()
    for heading in ("Failed runs", "What is done", "What it does not show", "Published", "Scales"):
        assert f"## {heading}" in page
    assert all(f"- {scale}: not run yet." in page for scale in SCALES)
    assert "| Griffin" in page and (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", STUDIES)
def test_every_scale_has_a_plan_whose_names_are_unique(name: str) -> None:
    for settings in STUDIES[name].scales.values():
        cells = STUDIES[name].plan(settings, {})
        assert cells and len({cell.name for cell in cells}) == len(cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_at_scale_smoke(name: str, tmp_path: Path) -> None:
    found = compare(name, "smoke", tmp_path, PLACE, f"griffin compare {name}")
    assert found["scale"] == "smoke" and found["scales"]["smoke"]["known_to_be_left"] == 0
    assert all("result" in cell for cell in found["cells"].values())


# ---- training


def test_every_architecture_sees_the_same_batches() -> None:
    task = Task("induction", 16, 12)

    def draw(random: np.random.Generator, step: int) -> object:
        return TASKS["induction"](random, 3, task)

    one, other = StepFeed(draw, 5), StepFeed(draw, 5)  # pyright: ignore[reportArgumentType]  # draws a Batch
    first = [one.take(0.0).tokens for _ in range(3)]
    assert all(batch.equal(other.take(0.9).tokens) for batch in first)
    assert not first[0].equal(first[1])
    other.restore({"step": 1})
    assert other.take(0.0).tokens.equal(first[1])


def test_a_run_ends_where_a_look_says_so() -> None:
    shape = recall.SCALES["tiny"].shape
    random = np.random.default_rng(0)
    rows = random.integers(0, shape.vocab, (4, 9))
    trainer = trainer_for(
        sized("hawk", shape),
        lambda _, step: batch_of(rows[:, :-1], rows[:, 1:]),
        Recipe(steps=50, rows=4, length=8),
        0.01,
        0,
        PLACE,
    )
    seen: list[int] = []

    def look(model: object, step: int) -> bool:
        seen.append(step)
        return step >= 20

    figures = fit(trainer, 50, 10, look)
    assert seen == [10, 20] and figures["steps"] == 20 and figures["loss"] < math.log(shape.vocab)


@pytest.mark.parametrize("products", ["bfloat16", "float32"])
def test_training_multiplies_in_what_was_asked_for_whatever_the_machine(products: str) -> None:
    settings = recall.SCALES["tiny"]
    cell = recall.plan(settings, {})[0]
    seen: set[torch.dtype] = set()

    def watch(module: torch.nn.Module, inputs: object, out: object) -> None:
        if module.training and isinstance(out, torch.Tensor):
            seen.add(out.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(watch)
    try:
        figures = recall.measure(settings, cell, PLACE._replace(products=products))
    finally:
        hook.remove()
    assert figures["products"] == products
    assert (torch.bfloat16 in seen) == (products == "bfloat16")


def test_products_of_an_unknown_kind_are_a_wrong_call() -> None:
    with pytest.raises(InputError, match="float16'"):
        _ = PLACE._replace(products="float16").bf16


def test_products_follow_the_machine_unless_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(study, "computes_in_bfloat16", lambda device, has=has: has)
        assert PLACE.bf16 == has


def test_a_loss_that_is_not_finite_is_a_failed_run() -> None:
    shape = recall.SCALES["tiny"].shape
    rows = np.zeros((2, 5), dtype=np.int64)
    trainer = trainer_for(
        sized("hawk", shape),
        lambda _, step: batch_of(rows[:, :-1], rows[:, 1:]),
        Recipe(steps=5, rows=2, length=4),
        0.01,
        0,
        PLACE,
    )
    with torch.no_grad():
        trainer.model.embed.weight[0] = math.nan
    with pytest.raises(TrainingError, match="nan"):
        fit(trainer, 5)


def test_looking_at_a_model_between_steps_changes_nothing_of_its_training() -> None:
    cell = recall.plan(recall.SCALES["tiny"], {})[0]
    settings = recall.SCALES["tiny"]
    one = recall.measure(settings, cell, PLACE)
    again = recall.measure(settings, cell, PLACE)
    same = {"accuracy", "loss", "by_step", "by_length"}
    assert {k: one[k] for k in same} == {k: again[k] for k in same}


# ---- what figures are made of


def test_accuracy_in_chunks_is_that_of_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = recall.SCALES["tiny"].shape
    trainer = trainer_for(
        sized("griffin", shape),
        lambda random, step: TASKS["copying"](random, 8, Task("copying", 16, 20, 5)),
        Recipe(steps=30, rows=8, length=20),
        0.01,
        0,
        PLACE,
    )
    fit(trainer, 30)
    task = Task("copying", 16, 20, 5)
    with torch.inference_mode():
        whole = recall_runs.accuracy(trainer.model, task, 64, CPU)
        monkeypatch.setattr(recall_runs, "_CHUNK", 3)
        assert recall_runs.accuracy(trainer.model, task, 64, CPU) == whole > 0


def test_bigrams_are_repeated_from_their_second_time_on() -> None:
    rows = np.array([[1, 2, 3, 1, 2, 3, 3], [5, 5, 5, 5, 1, 5, 1]])
    assert books_runs.repeated(rows).tolist() == [
        [False, False, False, True, True, False],
        [False, True, True, False, False, True],
    ]


def test_tokens_at_a_loss_lie_on_the_line_through_the_logarithms() -> None:
    curve = [(100.0, 2.0), (400.0, 1.0)]
    assert tokens.tokens_at(curve, 1.5) == pytest.approx(200)
    assert tokens.tokens_at(curve, 2.0) == pytest.approx(100)
    assert tokens.tokens_at(curve, 0.9) is None and tokens.tokens_at(curve, 2.1) is None


def test_a_model_that_needs_two_thirds_of_the_tokens_has_that_ratio() -> None:
    def curve(scale: float, shift: float = 0.0) -> list[tuple[float, float]]:
        return [(n, 5 - math.log(n / scale) + shift) for n in (100.0, 200.0, 400.0)]

    found = tokens.ratio([curve(2 / 3, s) for s in (-0.01, 0, 0.01)], [curve(1.0)] * 3)
    assert found is not None and found["ratio"] == pytest.approx(2 / 3, abs=0.01)
    assert found["low"] <= found["ratio"] <= found["high"] and found["outside"] == 0
    assert found["high"] - found["low"] > 0.001
    assert tokens.ratio([curve(0.01)], [curve(1.0)]) is None  # nothing is extrapolated


def test_a_branch_goes_on_from_its_trunk() -> None:
    settings = tokens.SCALES["tiny"]
    cells = tokens.plan(settings, {})
    short = tokens.measure(settings, cells[0], PLACE)
    whole = tokens.measure(
        settings,
        cells[0]._replace(settings={**cells[0].settings, "branches": [0.25, 1.0]}),
        PLACE,
    )
    assert whole["points"][0] == short["points"][0]  # the same trunk up to there
    assert [point["tokens"] for point in whole["points"]] == [3 * 64, 10 * 64]


def test_a_line_through_a_power_law_is_exact() -> None:
    slope, _, off = scaling.line_through([(10.0**k, 3 * 10.0 ** (-0.05 * k)) for k in (3, 4, 5)])
    assert slope == pytest.approx(-0.05) and off < 1e-9
