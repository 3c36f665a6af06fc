"""Equal sizes: every architecture has Griffin's non-embedding parameters, within 1 %."""

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import ConfigError
from griffin_lm.studies import architectures
from griffin_lm.studies.architectures import ARCHITECTURES, LABELS, Shape, inner_parameters, sized
from griffin_lm.studies.plots import STYLES
from griffin_lm.studies.registry import STUDIES

SMALL = Shape(vocab=19, width=32, layers=3, heads=4, window=8, mlp_width=96)
SHAPES = {
    f"{name} at {scale}": settings.shape
    for name, study in STUDIES.items()
    for scale, settings in study.scales.items()
    if hasattr(settings, "shape") and scale in ("cpu", "gpu")
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("where", SHAPES)
def test_sizes_are_equal_within_one_percent_at_every_scale(where: str, name: str) -> None:
    wanted = inner_parameters(sized("griffin", SHAPES[where]))
    assert abs(inner_parameters(sized(name, SHAPES[where])) / wanted - 1) <= 0.01


def test_the_count_leaves_out_the_embedding_alone() -> None:
    model = griffin.build(sized("griffin", SMALL))
    every = sum(p.numel() for p in model.parameters())
    assert inner_parameters(model.config) == every - SMALL.vocab * SMALL.width
    untied = griffin.build("tiny-llama").config
    head = 0 if untied.tied else untied.vocab * untied.width
    total = sum(p.numel() for p in griffin.build(untied).parameters())
    assert inner_parameters(untied) == total - untied.vocab * untied.width - head


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_reads_and_is_what_it_is_called(name: str) -> None:
    config = sized(name, SMALL)
    logits, _ = griffin.build(config)(torch.randint(SMALL.vocab, (2, 5)))
    assert logits is not None and logits.shape == (2, 5, SMALL.vocab) and logits.isfinite().all()
    kinds = {mixer.kind for mixer in config.pattern}
    known = {
        "griffin": {"rg_lru", "local_attention"},
        "hawk": {"rg_lru"},
        "lru": {"lru"},
        "gru": {"gru"},
        "mamba": {"s6"},
        "local": {"local_attention"},
    }
    assert kinds == known.get(name, {"global_attention"})


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no architecture 'rwkv'; there are: griffin, hawk"):
        sized("rwkv", SMALL)


def test_a_size_that_no_width_reaches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "TOLERANCE", 1e-9)
    with pytest.raises(ConfigError, match="can't be brought to"):
        sized("gru", SMALL)


def test_every_architecture_has_a_label_and_a_style_of_its_own() -> None:
    assert set(LABELS) == set(ARCHITECTURES) == set(STYLES)
    for part in zip(*STYLES.values(), strict=True):  # markers suffice in grey, as colours do
        if isinstance(part[0], str):
            assert len(set(part)) == len(part)
    dashes = [(marker, dash) for _, marker, dash in STYLES.values()]
    assert len(set(dashes)) == len(dashes)
