"""Recipes, settings, and what they do to the optimiser and the initial weights."""

import math
from pathlib import Path

import pytest
import torch

from griffin_lm.errors import ConfigError
from griffin_lm.models import build
from griffin_lm.training.config import TrainConfig, load_recipe, with_settings
from griffin_lm.training.memo import MemoCourse
from griffin_lm.training.optim import make_optimizer, slow_channels
from griffin_lm.training.schedule import learning_rate

RECIPE = Path(__file__).parents[2] / "recipes" / "fledgling.py"


def test_the_recipe_of_the_bundled_model_names_six_held_out_books():
    config = load_recipe(RECIPE)
    assert isinstance(config.feed, MemoCourse) and len(set(config.feed.held_out)) == 6
    assert config.model_config().vocab == 2048


def test_settings_reach_every_kind_of_field():
    config = with_settings(
        TrainConfig(feed=MemoCourse()),
        [
            "tokens=2e6",
            "bf16=false",
            "peak_rate=1e-3",
            "slow_half_life=3,4",
            "held_out=a,b",
            "feed.first_gap=64",
        ],
    )
    assert (config.tokens, config.bf16, config.peak_rate) == (2_000_000, False, 1e-3)
    assert config.slow_half_life == (3.0, 4.0) and isinstance(config.feed, MemoCourse)
    assert config.feed.held_out == ("a", "b") and config.feed.first_gap == 64


@pytest.mark.parametrize(
    "setting", ["colour=red", "tokens", "tokens=many", "bf16=perhaps", "held_out=a", "rows=0"]
)
def test_a_wrong_setting_is_named(setting: str):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        with_settings(TrainConfig(), [setting])


def test_a_recipe_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no recipe"):
        load_recipe(tmp_path / "absent.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="no function recipe"):
        load_recipe(tmp_path / "empty.py")


def test_the_learning_rate_warms_up_holds_and_falls():
    config = TrainConfig(peak_rate=1.0, last_rate=0.1, warmup_steps=10, decay_share=0.5)
    rates = [learning_rate(config, *at) for at in [(0, 0.0), (9, 0.1), (99, 0.5), (99, 0.75)]]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.55])
    assert learning_rate(config, 999, 1.0) == pytest.approx(0.1)
    begun = with_settings(config, ["decay_from=0.2"])
    assert learning_rate(begun, 99, 0.6) == pytest.approx(0.55)


@pytest.mark.parametrize(("schedule", "quarter"), [("linear", 0.775), ("cosine", 0.868198)])
def test_other_schedules_fall_all_the_time(schedule: str, quarter: float):
    config = TrainConfig(schedule=schedule, peak_rate=1.0, last_rate=0.1, warmup_steps=10)
    rates = [learning_rate(config, 99, share) for share in (0.0, 0.25, 0.5, 1.0)]
    assert rates == pytest.approx([1.0, quarter, 0.55, 0.1], abs=1e-6)
    assert learning_rate(config, 4, 0.0) == pytest.approx(0.5)


def test_a_schedule_that_there_is_not_lists_those_that_are():
    with pytest.raises(ConfigError, match="wsd or cosine or linear"):
        TrainConfig(schedule="steps")


def test_weight_decay_spares_the_rg_lru_biases_and_norms():
    model = build("tiny-griffin")
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, TrainConfig())
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert len(decayed) + len(spared) == len(names)
    assert {"embed.weight", "layers.0.mixer.linear_x.weight", "layers.2.mixer.q.weight"} <= decayed
    assert not [
        name for name in decayed if name.endswith(("bias", ".b", "scale")) or ".cell." in name
    ]
    assert optimizer.param_groups[1]["weight_decay"] == 0


@pytest.mark.parametrize("preset", ("tiny-lru", "tiny-gru", "tiny-mamba"))
def test_weight_decay_spares_what_the_papers_of_the_other_cells_spare(preset):
    model = build(preset)
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, TrainConfig())
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    papers = {"A_log", "D", "nu", "theta", "gamma", "B_re", "B_im", "w", "b", "bias", "scale"}
    assert not [name for name in decayed if name.rpartition(".")[2] in papers]
    assert "embed.weight" in decayed and all(name.rpartition(".")[2] in papers for name in spared)


def test_frozen_parameters_are_not_in_the_optimiser():
    model = build("tiny-griffin").requires_grad_(False)
    model.final_norm.scale.requires_grad_(True)
    groups = make_optimizer(model, TrainConfig()).param_groups
    assert [len(group["params"]) for group in groups] == [1]


def test_slow_channels_have_the_half_lives_asked_for():
    model = build("fledgling")
    before = model.layers[0].mixer.cell.Lambda.clone()
    config = TrainConfig(slow_share=0.25, slow_half_life=(3.0, 5.0))
    slow_channels(model, config)
    cell = model.layers[0].mixer.cell
    heads, per_head = cell.a_gate.b.shape
    slow = round(0.25 * per_head)
    lam = cell.Lambda.view(heads, per_head)[:, :slow]
    gate = cell.a_gate.b[:, :slow].sigmoid()
    half_life = math.log(2) / (8 * torch.nn.functional.softplus(lam) * gate)
    assert half_life.min().item() == pytest.approx(1e3, rel=1e-2)
    assert half_life.max().item() == pytest.approx(1e5, rel=1e-2)
    assert torch.equal(
        before.view(heads, per_head)[:, slow:], cell.Lambda.view(heads, per_head)[:, slow:]
    )
