"""Gemma, Llama 3 and Mamba from their directories: every command that runs a model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from griffin_lm.text import Tokenizer, load_tokenizer
from tests.checkpoints.meta_files import PARAMS, random_weights, write_meta
from tests.inference.vocabulary import vocabulary
from tests.text.llama import ranks, trained, write_llama_vocabulary

FP32 = ("--dtype", "float32", "--device", "cpu")
TEXT = "The griffin sat on the wall and looked at the sea.\n\nIt was older than the wall. " * 20
GEMMAS = ("<start_of_turn>", "<end_of_turn>")


def gptneox_vocabulary(folder: Path) -> Tokenizer:
    """As Mamba's: byte-level, and one piece that ends texts and begins none."""
    spec = json.loads(json.dumps(trained()))
    spec["added_tokens"] = [spec["added_tokens"][0] | {"content": "<|endoftext|>"}]
    spec["post_processor"] = None
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return load_tokenizer(folder)


def saved(folder: Path, preset: str, tokenizer: Tokenizer, tuned: bool, **changes: Any) -> Path:
    """A random model of a preset's kind in Hugging Face's format, with less of one token's weight
    in its own logit, so that what it says varies."""
    config = replace(griffin.PRESETS[preset], vocab=tokenizer.vocab_size, **changes)
    model = griffin.build(config, seed=5).requires_grad_(False)
    model.final_norm.scale.copy_(torch.randn(config.width, generator=torch.manual_seed(2)) * 3)
    griffin.save(LanguageModel(model, tokenizer, tuned), folder, format="huggingface")
    return folder


def make_gemma(home: Path) -> Path:
    return saved(home / "gemma", "tiny-gemma", vocabulary(markers=GEMMAS), tuned=True)


def make_llama(home: Path) -> Path:
    tokenizer = load_tokenizer(write_llama_vocabulary(home / "words"))
    attention = replace(griffin.PRESETS["tiny-llama"].pattern[0], head_dim=128)
    return saved(home / "llama", "tiny-llama", tokenizer, tuned=True, pattern=(attention,))


def make_meta(home: Path) -> Path:
    folder = home / "Meta-Llama-3-Tiny-Instruct"
    params = PARAMS | {"vocab_size": len(ranks()) + 256, "use_scaled_rope": False}
    write_meta(folder, params, random_weights(params), files=2)
    write_llama_vocabulary(folder, "tiktoken")
    return folder


def make_mamba(home: Path) -> Path:
    return saved(home / "mamba", "tiny-mamba", gptneox_vocabulary(home / "neox"), tuned=False)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "gemma": make_gemma,
    "llama": make_llama,
    "meta": make_meta,
    "mamba": make_mamba,
}


@pytest.fixture(scope="module", params=MAKERS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def test_it_continues_a_prompt(run, source: Path, tmp_path: Path) -> None:
    files = ("--json", tmp_path / "json", "--save-state", tmp_path / "state")
    result = run("generate", source, "The griffin sat", "--max-new-tokens", 12, *files, *FP32)
    assert result.code == 0, result.err
    again = griffin.load(source, device="cpu", dtype="float32").generate(
        "The griffin sat", max_new_tokens=12
    )
    assert again.text in result.out
    assert (tmp_path / "state").exists()


def test_it_talks_in_its_own_turns(run, source: Path) -> None:
    lm = griffin.load(source, device="cpu", dtype="float32")
    result = run(
        "chat", source, *FP32, "--max-new-tokens", 8, stdin=b"Who are you?\nWhy?\n/stats\n"
    )
    assert result.code == 0, result.err
    assert lm.instruction_tuned == (source.name != "mamba")
    said = result.out + result.err
    assert ("base model" in said) == (source.name == "mamba"), said


def test_it_reads_a_text_and_answers_about_it(run, source: Path, tmp_path: Path) -> None:
    book, state = tmp_path / "book.txt", tmp_path / "state"
    book.write_text(TEXT)
    result = run("read", source, book, "--save-state", state, *FP32)
    assert result.code == 0, result.err
    options = ("--state", state, "--max-new-tokens", 6, "--json", tmp_path / "json")
    result = run("ask", source, "Who sat?", *options, *FP32)
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "json").read_text())
    assert len(figures["tokens"]) in range(1, 7)
    assert figures["instruction_tuned"] == (source.name != "mamba")


def test_it_is_inspected(run, source: Path, tmp_path: Path) -> None:
    result = run("inspect", source, "--json", tmp_path / "json")
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "json").read_text())
    form = "meta" if source.name.startswith("Meta") else "huggingface"
    assert figures["files"]["format"] == form
    model = griffin.build(griffin.ModelConfig.from_dict(figures["config"]), device="meta")
    assert figures["parameters"] == sum(p.numel() for p in model.parameters())


def test_it_is_converted_to_our_format_and_back(run, source: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for begin, end, form in ((source, ours, "griffin"), (ours, theirs, "huggingface")):
        result = run("convert", begin, end, "--format", form)
        assert result.code == 0, result.err
        assert "the same bits" in result.out
    models = [griffin.load(path, device="cpu", dtype="float32") for path in (source, ours, theirs)]
    texts = {lm.generate("The sea", max_new_tokens=10).text for lm in models}
    assert len(texts) == 1
    assert len({lm.model.origin.model() for lm in models}) == 1
    assert len({lm.tokenizer.fingerprint for lm in models}) == 1
    assert len({(lm.instruction_tuned, lm.stop_ids) for lm in models}) == 1


def test_an_instruction_tuned_llama_stops_at_the_ends_of_its_turns(tmp_path: Path) -> None:
    first = len(ranks())
    for make in (make_llama, make_meta):
        lm = griffin.load(make(tmp_path / make.__name__), device="cpu", dtype="float32")
        assert set(lm.stop_ids) == {first + 1, first + 8, first + 9}


def test_a_mamba_begins_a_text_with_its_first_word(tmp_path: Path) -> None:
    lm = griffin.load(make_mamba(tmp_path), device="cpu", dtype="float32")
    assert lm.tokenizer.bos_id is None
    assert lm.tokenizer.eos_id == len(ranks())
    with pytest.raises(griffin.GriffinError):
        lm.generate("")


def test_a_scaled_rotation_of_metas_is_named_on_the_command_line(run, tmp_path: Path) -> None:
    params = PARAMS | {"vocab_size": len(ranks()) + 256}
    folder = write_meta(tmp_path / "m", params, random_weights(params))
    write_llama_vocabulary(folder, "tiktoken")
    result = run("generate", folder, "The sea", *FP32)
    assert result.code == 1
    assert "'rope_factor': 8.0" in result.err
    given = ("--config", '{"rope_factor": 32.0}')
    result = run("generate", folder, "The sea", "--max-new-tokens", 3, *given, *FP32)
    assert result.code == 0, result.err
