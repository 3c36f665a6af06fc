"""The same questions to lm-eval's own model for transformers: the same ids, scores and answers."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="needs the extra `eval`")
pytest.importorskip(
    "accelerate", reason="lm-eval needs it for transformers"
)  # its model for transformers imports it

import tokenizers
from lm_eval.api.instance import Instance

import griffin_lm as griffin
from griffin_lm.evals.harness.adapter import GriffinLM
from griffin_lm.inference import LanguageModel
from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.text import load_tokenizer
from tests.inference.vocabulary import SENTENCES


def vocabulary_file(folder: Path) -> Path:
    """Byte-level BPE, with BOS in front of every text."""
    made: Any = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers and accelerate
def test_lm_eval_s_model_for_transformers_says_the_same(tmp_path: Path):
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    file = vocabulary_file(tmp_path)
    tokenizer = load_tokenizer(file)
    recurrent = RGLRU(width=32, heads=2)
    config = griffin.ModelConfig(
        vocab=tokenizer.vocab_size,
        width=32,
        mlp_width=64,
        layers=3,
        pattern=(recurrent, recurrent, LocalAttention(heads=2, head_dim=16, window=64)),
        scale_embeddings=True,
        logit_cap=30.0,
    )
    model = griffin.build(config, seed=2)
    griffin.save(model, tmp_path / "model", format="huggingface")
    theirs = HFLM(
        pretrained=str(tmp_path / "model"),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_file=str(file), bos_token="<s>", eos_token="</s>", pad_token="</s>"
        ),
        device="cpu",
        dtype="float32",
        batch_size=1,  # its left padding goes through the recurrence
        max_length=256,
    )
    ours = GriffinLM(LanguageModel(model, tokenizer), batch_size=4)

    def both(kind: Any, *arguments: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        requests = [Instance(request_type=kind, doc={}, arguments=a, idx=0) for a in arguments]
        found = [getattr(one, kind)(requests, disable_tqdm=True) for one in (theirs, ours)]
        return found[0], found[1]

    contexts = (SENTENCES[0][:20], SENTENCES[1], "She ", "<s>She", "")
    ends = (" house", " house and night", "x", " 漢字")
    pairs = [(context, end) for context in contexts for end in ends]
    for one, other in zip(*both("loglikelihood", *pairs), strict=True):
        assert other[0] == pytest.approx(one[0], rel=1e-4) and other[1] == one[1]
    theirs.add_bos_token = False  # by default a rolled text of theirs begins with BOS twice
    rolling = both("loglikelihood_rolling", *((text,) for text in SENTENCES[:3]))
    assert rolling[1] == pytest.approx(rolling[0], rel=1e-4)
    theirs.add_bos_token = None
    options = {"until": ["e"], "max_gen_toks": 6}
    answers = both("generate_until", *((text, options) for text in SENTENCES[:3]))
    assert answers[0] == answers[1]
