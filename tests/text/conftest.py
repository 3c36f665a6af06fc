"""Small vocabularies of every kind, trained once per session (about a second)."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from griffin_lm.text import Tokenizer, load_tokenizer

FLEDGLING_MARKERS = ["<user>", "<model>", "<end>", "<note>", "</note>"]
GEMMA_MARKERS = ["<start_of_turn>", "<end_of_turn>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SENTENCES = [
    "The griffin sat on the wall and looked at the sea.",
    "Note that a user may end a turn, start another, or ask of the model what it likes.",
    "Il était une fois, à l'école, un garçon naïf; das Mädchen hieß Grüße.",
    "one two  three   four, five; six: seven? eight! nine - ten (eleven)",
    "The sea was calm; the wall was old, and the griffin older than the sea.",
] * 6

KINDS = [
    "sp-identity",  # as Gemma and fledgling: byte fallback, nothing added, nothing removed
    "sp-prefix",  # as Llama and Mistral: a space in front
    "sp-unigram-prefix",
    "json-byte-level",  # as Llama 3 and GPT-2
    "json-byte-level-prefix",
    "json-gemma",  # spaces as U+2581, byte fallback
    "json-llama",  # the same with a prefix that the decoder strips
    "json-metaspace",
]
PREFIXED = [kind for kind in KINDS if kind.endswith(("prefix", "llama", "metaspace"))]


def train_sentencepiece(**options: Any) -> bytes:
    """Trains a vocabulary of 400 or so pieces; returns the file's bytes."""
    out = io.BytesIO()
    settings = {
        "vocab_size": 360,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "pad_id": 3,
        "minloglevel": 2,
        "hard_vocab_limit": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=out, **(settings | options)
    )
    return out.getvalue()


def byte_level_json(add_prefix_space: bool) -> dict[str, Any]:
    """A tokenizer.json in Llama 3's way, as an object."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    library.decoder = tokenizers.decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        show_progress=False,
        special_tokens=["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    library.train_from_iterator(SENTENCES, trainer)
    return json.loads(library.to_str())


def spaces_json(kind: str) -> dict[str, Any]:
    """A tokenizer.json with U+2581 for spaces and byte fallback, as an object."""
    library = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    named = ["<pad>", "<eos>", "<bos>", "<unk>", *GEMMA_MARKERS]
    trainer = trainers.BpeTrainer(
        vocab_size=400, show_progress=False, special_tokens=[*named, *BYTES]
    )
    library.train_from_iterator(SENTENCES, trainer)
    spec = json.loads(library.to_str())
    spec["added_tokens"] = [row for row in spec["added_tokens"] if row["content"] in named]
    spec["model"]["byte_fallback"] = True
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if kind == "json-metaspace":
        metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"}
        spec["pre_tokenizer"] = metaspace | {"split": True}
        spec["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]}
        return spec
    spec["pre_tokenizer"] = None
    spec["normalizer"] = replace
    if kind == "json-llama":
        prepend = {"type": "Prepend", "prepend": "\u2581"}
        spec["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    spec["decoder"] = {"type": "Sequence", "decoders": back}
    return spec


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One vocabulary file of each of KINDS, in a folder of its own."""
    content = {
        "sp-identity": train_sentencepiece(user_defined_symbols=FLEDGLING_MARKERS),
        "sp-prefix": train_sentencepiece(
            add_dummy_prefix=True, pad_id=-1, user_defined_symbols=GEMMA_MARKERS
        ),
        "sp-unigram-prefix": train_sentencepiece(
            add_dummy_prefix=True, model_type="unigram", user_defined_symbols=["<end>", "<table>"]
        ),
        "json-byte-level": byte_level_json(add_prefix_space=False),
        "json-byte-level-prefix": byte_level_json(add_prefix_space=True),
        **{kind: spaces_json(kind) for kind in ("json-gemma", "json-llama", "json-metaspace")},
    }
    assert sorted(content) == sorted(KINDS)
    paths: dict[str, Path] = {}
    for kind, data in content.items():
        name = "tokenizer.model" if isinstance(data, bytes) else "tokenizer.json"
        paths[kind] = tmp_path_factory.mktemp(kind) / name
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        paths[kind].write_bytes(raw)
    return paths


@pytest.fixture(scope="session")
def vocabularies(files: dict[str, Path]) -> dict[str, Tokenizer]:
    """The files of KINDS, opened."""
    return {kind: load_tokenizer(path) for kind, path in files.items()}


@pytest.fixture(scope="session")
def shared_tokenizers() -> Path:
    """The project's folder of published vocabularies, which not every checkout has beside it."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/tokenizers beside this checkout")
    return folder
