"""Whether a checkpoint takes turns and where it stops: found out, kept, and never guessed wrong."""

import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

import griffin_lm as griffin
from griffin_lm.checkpoints import FORMATS
from griffin_lm.errors import CheckpointCorrupt
from griffin_lm.inference import Conversation, LanguageModel
from griffin_lm.inference.instruction import is_instruction_tuned, read_stops
from griffin_lm.text import GEMMA
from griffin_lm.text.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.inference.vocabulary import SENTENCES

FP32: Any = {"device": "cpu", "dtype": "float32"}


@cache
def gemmas_vocabulary() -> SentencePieceTokenizer:
    """Small, with Gemma's special pieces at Gemma's ids: pad 0, eos 1, turns 106, 107."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=480,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=[
            *("<mask>", "<2mass>", "[@BOS@]"),
            *(f"<unused{n}>" for n in range(99)),
            *("<start_of_turn>", "<end_of_turn>"),
        ],
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


@pytest.fixture(scope="module")
def tuned(lm: LanguageModel) -> LanguageModel:
    """An instruction-tuned model with Gemma's markers, of a shape that every format can hold."""
    vocabulary = gemmas_vocabulary()
    recurrent, _, attention = lm.config.pattern
    pattern = tuple(replace(mixer, heads=2) for mixer in (recurrent, recurrent, attention))
    config = replace(lm.config, vocab=vocabulary.vocab_size, pattern=pattern, scale_embeddings=True)
    return LanguageModel(griffin.build(config, seed=4), vocabulary, instruction_tuned=True)


def edit(folder: Path, file: str, **settings: Any) -> None:
    """Adds settings to a JSON file, which may be new; None takes one out."""
    path = folder / file
    value = json.loads(path.read_text()) if path.exists() else {}
    value |= settings
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


def test_gemmas_vocabulary_stops_at_1_and_107(tuned: LanguageModel) -> None:
    special = tuned.tokenizer.special_id
    assert (special("<start_of_turn>"), special("<end_of_turn>")) == (106, 107)
    assert tuned.tokenizer.stop_ids == tuned.stop_ids == (1, 107)
    assert Conversation(tuned).template is GEMMA


@pytest.mark.parametrize("stop", [1, 107])
def test_generation_ends_at_either(tuned: LanguageModel, monkeypatch, stop: int) -> None:
    monkeypatch.setattr(
        "griffin_lm.inference.generate.choose", lambda logits, *_: logits[:, 0].long() * 0 + stop
    )
    out = tuned.generate("The wind", max_new_tokens=5)
    assert out.tokens == [stop] and out.finish_reason == "stop" and out.text == ""


@pytest.mark.parametrize("format", list(FORMATS))
def test_saving_keeps_whether_a_model_takes_turns(tuned, tmp_path: Path, format: str) -> None:
    if format == "deepmind-flax":
        pytest.importorskip("tensorstore", reason="Flax checkpoints need the deepmind extra")
    griffin.save(tuned, tmp_path / "model", format=format)
    again = griffin.load(tmp_path / "model", **FP32)
    assert again.instruction_tuned and again.stop_ids == (1, 107)
    tuned_not = LanguageModel(tuned.model, tuned.tokenizer)
    griffin.save(tuned_not, tmp_path / "base", format=format)
    again = griffin.load(tmp_path / "base", **FP32)
    # Gemma's base models have the markers too
    assert not again.instruction_tuned and again.tokenizer.turn is GEMMA
    assert "instruction_tuned" not in json.loads((tmp_path / "base" / "config.json").read_text())


def test_hugging_faces_format_gets_a_chat_template(tuned, tmp_path: Path) -> None:
    griffin.save(tuned, tmp_path / "model", format="huggingface")
    assert (tmp_path / "model" / "chat_template.jinja").read_text() == GEMMA.jinja()
    griffin.save(tuned, tmp_path / "ours")
    assert not (tmp_path / "ours" / "chat_template.jinja").exists()


def test_a_checkpoint_from_before_that_key_is_a_base_model(tuned, tmp_path: Path) -> None:
    griffin.save(tuned, tmp_path / "old")
    edit(tmp_path / "old", "config.json", instruction_tuned=None)
    assert not griffin.load(tmp_path / "old", **FP32).instruction_tuned


@pytest.mark.parametrize(
    ("name", "takes_turns"),
    [
        ("recurrentgemma-2b-it", True),
        ("2b-it", True),
        ("someone/gemma-1.1-2b-it", True),
        ("google/recurrentgemma-9b-it@main", True),
        ("meta-llama/Llama-3.2-1B-Instruct", True),
        ("recurrentgemma-2b", False),
        ("2b-italian", False),
        ("google-it/recurrentgemma-2b", False),
        ("edit-2b", False),
    ],
)
def test_a_name_may_tell(tmp_path: Path, name: str, takes_turns: bool) -> None:
    assert is_instruction_tuned(tmp_path, name) is takes_turns
    folder = tmp_path / name.rpartition("/")[2]
    folder.mkdir()
    assert is_instruction_tuned(folder) is takes_turns
    (folder / "2b.pt").touch()
    assert is_instruction_tuned(folder / "2b.pt") is takes_turns


def test_a_chat_template_tells_and_the_config_has_the_last_word(tmp_path: Path) -> None:
    edit(tmp_path, "tokenizer_config.json", chat_template="")
    assert not is_instruction_tuned(tmp_path)
    edit(tmp_path, "tokenizer_config.json", chat_template="{{ messages }}")
    assert is_instruction_tuned(tmp_path)
    edit(tmp_path, "config.json", instruction_tuned=False)
    assert not is_instruction_tuned(tmp_path, "2b-it")
    edit(tmp_path, "config.json", instruction_tuned="yes")
    assert is_instruction_tuned(tmp_path)


def test_a_template_in_a_file_of_its_own_tells_too(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert is_instruction_tuned(tmp_path)


def test_fledgling_takes_turns() -> None:
    lm = griffin.load("fledgling", **FP32)
    assert lm.instruction_tuned and Conversation(lm).template.name == "fledgling"


@pytest.mark.parametrize(
    ("eos", "stops"), [(1, (1, 107)), ([1, 107], (1, 107)), ([1, 50, 107], (1, 107, 50))]
)
def test_further_ids_of_the_generation_config_are_honoured_and_kept(
    tuned, tmp_path: Path, eos: Any, stops: tuple[int, ...]
) -> None:
    griffin.save(tuned, tmp_path / "a", format="huggingface")
    edit(tmp_path / "a", "generation_config.json", eos_token_id=eos)
    lm = griffin.load(tmp_path / "a", **FP32)
    assert lm.stop_ids == stops
    assert lm.tokenizer.fingerprint == tuned.tokenizer.fingerprint  # states go on fitting
    for format in ("griffin", "huggingface"):
        griffin.save(lm, tmp_path / format, format=format)
        assert griffin.load(tmp_path / format, **FP32).stop_ids == stops
    written = json.loads((tmp_path / "huggingface" / "generation_config.json").read_text())
    assert written["eos_token_id"] == list(stops)


def test_generation_ends_at_a_further_id(tuned, tmp_path: Path, monkeypatch) -> None:
    lm = LanguageModel(tuned.model, tuned.tokenizer, True, further_stops=[50])
    monkeypatch.setattr(
        "griffin_lm.inference.generate.choose", lambda logits, *_: logits[:, 0].long() * 0 + 50
    )
    assert lm.generate("The wind", max_new_tokens=5).finish_reason == "stop"
    assert tuned.generate("The wind", max_new_tokens=5).finish_reason == "length"


@pytest.mark.parametrize("eos", ["1", [1, 480_000], -1, [True], 1.0, {"a": 1}])
def test_an_end_that_is_no_id_is_refused(tmp_path: Path, eos: Any) -> None:
    edit(tmp_path, "generation_config.json", eos_token_id=eos)
    with pytest.raises(CheckpointCorrupt, match="eos_token_id"):
        read_stops(tmp_path, 480)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "generation_config.json"])
def test_a_damaged_file_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("{")
    with pytest.raises(CheckpointCorrupt, match=file):
        is_instruction_tuned(tmp_path)
        read_stops(tmp_path, 480)
