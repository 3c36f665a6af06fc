"""docs/from-transformers.md does what it says; the script beside it asks transformers itself."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from griffin_lm.text import GEMMA, load_tokenizer
from tests.inference.vocabulary import SENTENCES
from tests.test_docs import DOCS, ROOT, blocks

# the dev extra brings it; the package itself must pass its tests without
pytest.importorskip("transformers")

PAGE = DOCS / "from-transformers.md"
NAME = "google/recurrentgemma-2b-it"


def vocabulary(folder: Path) -> None:
    """A small tokenizer.json with Gemma's markers, and tokenizer_config.json as on the hub."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    library.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    named = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    library.train_from_iterator(
        [*SENTENCES, "user\nmodel\n"],
        tokenizers.trainers.BpeTrainer(
            vocab_size=240, show_progress=False, special_tokens=named,
            initial_alphabet=["\n", *"abcdefghijklmnopqrstuvwxyz"],
        ),
    )  # fmt: skip
    library.decoder = tokenizers.decoders.Replace("\u2581", " ")
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    library.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": GEMMA.jinja()}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny instruction-tuned model as transformers keeps it, in google/recurrentgemma-2b-it."""
    home = tmp_path_factory.mktemp("hub")
    vocabulary(home)
    tokenizer = load_tokenizer(home)
    tiny = griffin.PRESETS["tiny-griffin"]
    pattern = tuple(replace(mixer, heads=2) for mixer in tiny.pattern)
    pattern = (*pattern[:2], replace(pattern[2], window=128))
    config = replace(
        tiny, vocab=tokenizer.vocab_size, pattern=pattern, scale_embeddings=True, logit_cap=30.0
    )
    lm = LanguageModel(griffin.build(config, seed=4), tokenizer, instruction_tuned=True)
    griffin.save(lm, home / NAME, format="huggingface")
    return home


def test_every_snippet_of_the_page_runs_and_both_halves_agree(folder: Path) -> None:
    code = "\n".join(blocks(PAGE, "python"))
    assert code.count("assert") >= 6 and NAME in code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "tuned" / "tokenizer_config.json").exists()


@pytest.fixture(scope="module")
def printed() -> str:
    """What the script says of the transformers here."""
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "transformers_bugs.py"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


ROW = re.compile(r"^(.{36}) +(\S+) +(\S+)  (WRONG|right)", re.MULTILINE)


def test_griffin_lm_is_right_in_every_case(printed: str) -> None:
    rows = ROW.findall(printed)
    assert len(rows) == 8
    assert all(float(ours) < 1e-4 for _, _, ours, _ in rows)
    assert "please report" not in printed


def test_a_verdict_is_what_the_figures_say(printed: str) -> None:
    verdicts = [(float(theirs) > 1e-4, verdict) for _, theirs, _, verdict in ROW.findall(printed)]
    assert all(wrong == (verdict == "WRONG") for wrong, verdict in verdicts)
    assert f"{sum(wrong for wrong, _ in verdicts)} of 8 wrong" in printed


def test_the_page_shows_the_scripts_output_for_the_version_tested(printed: str) -> None:
    """Should a bug go, or another version be tested, the page has to say so."""
    (shown,) = (text for text in blocks(PAGE, "text") if "griffin-lm" in text)
    now = [(case.strip(), verdict) for case, _, _, verdict in ROW.findall(printed)]
    then = [(case.strip(), verdict) for case, _, _, verdict in ROW.findall(shown)]
    assert then == now
    version = re.search(r"transformers [\d.]+", printed)
    assert version is not None and version[0] in shown
