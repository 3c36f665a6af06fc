"""A small vocabulary of Llama 3's kind, made on the spot: as `tokenizer.json` and as ranks."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from griffin_lm.text.json_file import stand_ins
from griffin_lm.text.tiktoken_file import SPECIALS, SPLIT

SENTENCES = [
    "The griffin sat on the wall and looked at the sea; it'll look again, WE'RE told.",
    "Il était une fois, à l'école, un garçon naïf; das Mädchen hieß Grüße.\n\n  Indented\tline",
    "one two  three   four, five; 1234567 and 89: eight! 3.14159 (eleven)\r\n\r\n",
    "The wall was old, and the griffin older than the sea was calm. 日本語 и русский текст 🦅",
] * 8


@cache
def trained() -> dict[str, Any]:
    """A tokenizer.json with merges that were learned, ids below those of the special pieces."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    library.train_from_iterator(SENTENCES, trainer)
    library.add_special_tokens(list(SPECIALS))
    spec = json.loads(library.to_str())
    spec["model"]["ignore_merges"] = True
    first = spec["added_tokens"][0]
    name = first["content"]
    begin = {"SpecialToken": {"id": name, "type_id": 0}}
    one, two = ({"Sequence": {"id": part, "type_id": n}} for n, part in enumerate("AB"))
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, one],
        "pair": [begin, one, two],
        "special_tokens": {name: {"id": name, "ids": [first["id"]], "tokens": [name]}},
    }
    return spec


@cache
def ranks() -> dict[bytes, int]:
    """The same pieces as bytes."""
    table = stand_ins()
    vocabulary: dict[str, int] = trained()["model"]["vocab"]
    return {bytes(table[c] for c in piece): rank for piece, rank in vocabulary.items()}


@cache
def tiktoken_bytes() -> bytes:
    """As Llama 3's tokenizer.model is written."""
    lines = (f"{base64.b64encode(piece).decode()} {rank}\n" for piece, rank in ranks().items())
    return "".join(lines).encode()


def write_llama_vocabulary(folder: Path, kind: str = "json") -> Path:
    """Writes one of the two files; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("tokenizer.json" if kind == "json" else "tokenizer.model")
    data = json.dumps(trained()).encode() if kind == "json" else tiktoken_bytes()
    path.write_bytes(data)
    return path
