"""A tiny language model whose text varies: random weights, a vocabulary made on the spot."""

from dataclasses import replace

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from tests.inference.vocabulary import vocabulary


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    config = replace(griffin.PRESETS["tiny-griffin"], vocab=vocabulary().vocab_size)
    model = griffin.build(config, seed=3).requires_grad_(False)
    # with tied embeddings a random model repeats its last token; random signs at the end undo that
    random = torch.Generator().manual_seed(4)
    model.final_norm.scale.copy_(6 * torch.randn(config.width, generator=random) - 1)
    return LanguageModel(model, vocabulary())


@pytest.fixture
def stops_at(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    """Makes these ids end a generation, as EOS does."""

    def set_ids(*ids: int) -> None:
        monkeypatch.setattr(lm.tokenizer, "stop_ids", ids)

    return set_ids
