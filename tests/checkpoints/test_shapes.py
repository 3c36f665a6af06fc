"""The config of a checkpoint that carries none: shapes, the preset they match, or config=."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import griffin_lm as griffin
from griffin_lm.checkpoints.deepmind import IN_FLAX, IN_TORCH
from griffin_lm.checkpoints.deepmind.shapes import infer
from griffin_lm.checkpoints.names import Shape, expand
from griffin_lm.checkpoints.saving import outgoing
from griffin_lm.errors import CheckpointMismatch, ConfigError
from griffin_lm.mixers import RGLRU, LocalAttention
from tests.checkpoints.helpers import TINY

R, A = TINY.pattern[1:]
KNOWN: dict[str, Any] = {"window": 8, "logit_cap": 30.0, "scale_embeddings": True}
BOTH = pytest.mark.parametrize("flax", [False, True], ids=["torch", "flax"])


class Shapes:
    """A source of which only the shapes are asked."""

    where = Path("somewhere/2b.pt")
    nbytes = 0
    files = ()
    mapped = True

    def __init__(self, shapes: dict[str, Shape]) -> None:
        self.shapes = shapes

    def dtype(self, name: str) -> torch.dtype:
        raise AssertionError(name)

    def get(self, name: str) -> Tensor:
        raise AssertionError(name)


def shapes_of(config: griffin.ModelConfig, flax: bool = False) -> Shapes:
    parameters = dict(griffin.Griffin(config, "meta").named_parameters())
    plan = expand((IN_FLAX if flax else IN_TORCH).names, parameters, "theirs")
    return Shapes({tensor.name: tensor.shape for tensor in outgoing(plan, parameters)})


@BOTH
@pytest.mark.parametrize(
    "preset", ["recurrentgemma-2b", "recurrentgemma-9b", "griffin-code-7b", "hawk-code-7b"]
)
def test_published_shapes_tell_the_published_config(preset: str, flax: bool) -> None:
    found = infer(shapes_of(griffin.PRESETS[preset], flax), None)
    assert found == griffin.PRESETS[preset]
    assert infer(shapes_of(griffin.PRESETS[preset], flax), preset) == found


@BOTH
@pytest.mark.parametrize(
    "pattern",
    [(R, R, A), (R, A), (A, R), (A,), (R,), (R, R, R, R, A), (A, A, R, R, A)],
    ids=lambda pattern: "".join("A" if mixer is A else "R" for mixer in pattern),
)
def test_any_pattern_is_read_also_one_that_ends_in_attention(pattern: Any, flax: bool) -> None:
    """DeepMind's own reader takes the wrong axis of proj_k there, and finds one head."""
    config = replace(TINY, pattern=pattern, layers=5)
    found = infer(shapes_of(config, flax), KNOWN)
    assert [found.mixer(i) for i in range(5)] == [config.mixer(i) for i in range(5)]
    assert replace(found, pattern=pattern) == config
    assert len(found.pattern) <= len(pattern)


def test_heads_of_gates_and_of_attention_are_read_apart() -> None:
    pattern = (RGLRU(width=48, heads=4), LocalAttention(heads=1, head_dim=32, window=8))
    config = replace(TINY, pattern=pattern, layers=2)
    assert infer(shapes_of(config), KNOWN) == config


def test_a_table_padded_for_the_hardware_is_the_presets() -> None:
    preset = griffin.PRESETS["recurrentgemma-2b"]
    source = shapes_of(replace(preset, vocab=256_128))
    assert infer(source, None) == preset
    assert infer(source, {"vocab": 256_000, **KNOWN}).vocab == 256_000
    with pytest.raises(ConfigError, match="vocab is 250000, by the shapes 256128"):
        infer(source, {"vocab": 250_000})


def test_without_a_preset_it_says_what_the_shapes_do_not_tell() -> None:
    with pytest.raises(ConfigError) as caught:
        infer(shapes_of(TINY), None)
    for word in ("2b.pt", "vocab 96", "5 layers RRARR", "window, logit_cap, scale_embeddings",
                 "'window': 2048"):  # fmt: skip
        assert word in str(caught.value)
    hawk = replace(TINY, pattern=(R,))
    with pytest.raises(ConfigError) as caught:
        infer(shapes_of(hawk), {"logit_cap": 30.0})
    assert "do not tell scale_embeddings:" in str(caught.value)
    assert infer(shapes_of(hawk), {"logit_cap": 30.0, "scale_embeddings": True}) == hawk


def test_of_several_presets_none_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(TINY, pattern=(R, R, replace(A, window=4)))
    monkeypatch.setitem(griffin.PRESETS, "one", TINY)
    monkeypatch.setitem(griffin.PRESETS, "other", other)
    source = shapes_of(TINY)
    with pytest.raises(ConfigError, match=r"fit several presets \(one, other\)"):
        infer(source, None)
    assert infer(source, {"window": 4}) == other
    assert infer(source, "one") == TINY
    with pytest.raises(ConfigError, match="several presets"):
        infer(source, {"window": 5})
    assert infer(source, KNOWN | {"window": 5}).pattern[2].to_dict()["window"] == 5


def test_a_setting_overrules_the_one_preset_that_fits() -> None:
    preset = griffin.PRESETS["recurrentgemma-2b"]
    found = infer(shapes_of(preset), {"window": 1024})
    assert found == replace(
        preset, pattern=(*preset.pattern[:2], replace(preset.pattern[2], window=1024))
    )
    assert infer(shapes_of(preset), {"heads": 10, "window": 2048, "logit_cap": 30.0,
                                     "scale_embeddings": True}) == preset  # fmt: skip


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("recurrentgemma-9b", "width is 4096, by the shapes 32"),
        (replace(TINY, layers=6), "layers is 6, by the shapes 5"),
        (replace(TINY, pattern=(R, A)), "layer 1 is local_attention, by the shapes rg_lru"),
        (replace(TINY, pattern=(R, R, replace(A, heads=1, head_dim=32))), "heads is 1, by the"),
        (replace(TINY, vocab=95), "vocab is 95, the embedding has 96 rows"),
        (KNOWN | {"heads": 4}, "heads is 4, by the shapes 2"),
        (KNOWN | {"lru_width": 31}, "lru_width is 31, by the shapes 32"),
        (KNOWN | {"layers": 4}, "layers is 4, by the shapes 5"),
        (KNOWN | {"kv_heads": 2}, "kv_heads is 2, by the shapes 1"),
        (KNOWN | {"windw": 4}, "'windw'"),
        (KNOWN | {"tied": False}, "'tied'"),
        (KNOWN | {"window": "8"}, "window"),
        (KNOWN | {"window": 0}, "window must be positive"),
        (KNOWN | {"logit_cap": None}, "logit_cap"),
        (KNOWN | {"heads": [2]}, r"heads is \[2\], by the shapes 2"),
        ("nonsense", "no preset 'nonsense'"),
    ],
)
def test_what_contradicts_the_shapes_is_refused(given: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        infer(shapes_of(TINY), given)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("embedder.input_embedding", None, "input_embedding is missing"),
        ("embedder.input_embedding", (96, 32, 1), "input_embedding is (96, 32, 1)"),
        ("embedder.input_embedding", (0, 32), "input_embedding is (0, 32)"),
        ("blocks.0.mlp_block.ffw_up.w", None, "ffw_up.w is missing"),
        ("blocks.0.recurrent_block.rg_lru.a_gate.w", (16, 16), "a_gate.w is (16, 16)"),
        ("blocks.1.recurrent_block.rg_lru.a_gate.w", None, "blocks.1.attention_block.proj_k"),
        ("blocks.1.recurrent_block.conv_1d.w", None, "conv_1d.w is missing"),
        ("blocks.2.attention_block.proj_q.weight", None, "proj_q.weight is missing"),
        ("blocks.2.attention_block.proj_k.weight", (15, 32), "no heads of 15"),
        ("blocks.7.temporal_pre_norm.scale", (32,), "blocks.5."),
    ],
)
def test_tensors_that_are_not_theirs_are_refused_by_name(name: str, shape: Any, said: str) -> None:
    source = shapes_of(TINY)
    source.shapes.pop(name, None)
    if shape is not None:
        source.shapes[name] = shape
    with pytest.raises(CheckpointMismatch) as caught:
        infer(source, KNOWN)
    assert "2b.pt" in str(caught.value) and said in str(caught.value)


def test_an_empty_source_is_not_theirs() -> None:
    with pytest.raises(CheckpointMismatch, match="input_embedding is missing"):
        infer(Shapes({}), None)
