"""Small good files: every kind that the readers know, a few kilobytes each, the same every time."""

import io
import json
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from ...checkpoints import save_model
from ...inference.bookmark import Bookmark
from ...mixers import GRU, LRU, RGLRU, S6, GlobalAttention, LocalAttention
from ...models import PRESETS, Griffin, ModelConfig, build

CONFIG = ModelConfig(
    vocab=24,
    width=8,
    mlp_width=12,
    layers=2,
    pattern=(RGLRU(width=8, heads=2), LocalAttention(heads=2, head_dim=4, window=4)),
    logit_cap=30.0,
    scale_embeddings=True,
)
TEXT = "the griffin sat on an old wall; il était naïf  and looked at 12 sea birds "
SENTENCES = [TEXT[i:] + TEXT[:i] for i, letter in enumerate(TEXT) if letter == " "]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
EVERY = replace(  # a layer of every kind
    CONFIG,
    layers=6,
    pattern=(
        *CONFIG.pattern,
        LRU(width=8, states=4),
        GRU(width=8),
        S6(width=8, rank=2, states=4),
        GlobalAttention(heads=2, head_dim=4),
    ),
)
SHARD = 2_000  # bytes


def model(dtype: torch.dtype = torch.float32, config: ModelConfig = CONFIG) -> Griffin:
    """Every parameter random."""
    made = build(config, seed=5).requires_grad_(False)
    random = torch.Generator().manual_seed(6)
    for name, parameter in made.named_parameters():
        if not name.endswith("Lambda"):
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return made.to(dtype)


def checkpoints(form: str, folder: Path) -> None:
    """A checkpoint whole, in bfloat16, in shards, quantised; and with the other kinds of layers."""
    save_model(model(), folder / "whole", form)
    save_model(model(torch.bfloat16), folder / "bfloat16", form)
    save_model(model(), folder / "shards", form, max_shard_bytes=SHARD)
    if form == "griffin":
        save_model(model(config=EVERY), folder / "every", form)
        save_model(model(), folder / "int8", form, quantize="int8", max_shard_bytes=SHARD)
        save_model(model(torch.bfloat16), folder / "int4", form, quantize="int4")
    else:
        for name in ("gemma", "llama", "mamba"):
            small = replace(PRESETS[f"tiny-{name}"], vocab=24, layers=1)
            save_model(model(config=small), folder / name, form)


def indexed(folder: Path) -> None:
    """Checkpoints in shards, ours and Hugging Face's."""
    for form in ("griffin", "huggingface"):
        save_model(model(), folder / form, form, max_shard_bytes=SHARD)


def states(folder: Path) -> None:
    """The state of two rows, and one of a single row with a pending token and a bookmark."""
    tokens = torch.arange(12).view(2, 6)
    made = model(config=EVERY)  # a state knows its model only while that is there
    _, state = made(tokens, logits=None)
    for name, saved in (("rows", state), ("pending", state[:1].with_pending([3]))):
        (folder / name).mkdir(parents=True)
        note = Bookmark(source="book.txt", tokens=6).note() if name == "pending" else None
        saved.save(folder / name / "session.state", note=note)


def torch_files(folder: Path) -> None:
    """A `.pt` as we write it, with config.json, and one of torch.save with nothing beside it."""
    save_model(model(), folder / "ours", "deepmind-torch")
    weights = torch.load(next((folder / "ours").glob("*.pt")), weights_only=True)
    (folder / "bare").mkdir()
    torch.save(OrderedDict(weights), folder / "bare" / "2b.pt")


def orbax_folders(folder: Path) -> None:
    """Orbax's layouts: ours; OCDBT as Orbax writes it, with plain nodes; the older zarr one.

    tensorstore gives its files random names, so they were made once (`orbax_seeds`) and kept.
    """
    with zipfile.ZipFile(Path(__file__).with_name("orbax.zip")) as archive:
        archive.extractall(folder)


def settings(folder: Path) -> None:
    """What says whether a checkpoint takes turns and where it stops, of either kind."""
    files: dict[str, dict[str, Any]] = {
        "ours/config.json": {"format": "griffin-lm", "instruction_tuned": True, "stop_ids": [1, 7]},
        "theirs/config.json": {"model_type": "recurrent_gemma"},
        "theirs/generation_config.json": {"eos_token_id": [1, 7], "bos_token_id": 2},
        "theirs/tokenizer_config.json": {"chat_template": "{{ bos_token }}", "bos_token": "<bos>"},
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))


def sentencepieces(folder: Path) -> None:
    """BPE as Gemma has it, BPE with a prefix, unigrams with a table of characters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.tsv").write_text("41\t61\n42\t62\nFB01\t66 69\n65 301\tE9\n")
    kinds: dict[str, dict[str, Any]] = {
        "gemma": {"user_defined_symbols": GEMMA[4:]},
        "prefix": {"add_dummy_prefix": True, "pad_id": -1, "remove_extra_whitespaces": True},
        "unigram": {
            "model_type": "unigram",
            "byte_fallback": False,
            "vocab_size": 60,
            "normalization_rule_tsv": str(folder / "rules.tsv"),
            "user_defined_symbols": ["<end>"],
        },
    }
    for name, options in kinds.items():
        out = io.BytesIO()
        settings: dict[str, Any] = {
            "vocab_size": 290,
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
        (folder / name).mkdir(parents=True)
        data = out.getvalue().replace(str(folder).encode(), b"." * len(str(folder)))
        (folder / name / "tokenizer.model").write_bytes(data)
    (folder / "rules.tsv").unlink()


def json_vocabularies(folder: Path) -> None:
    """Byte-level BPE with a config beside it, BPE as Gemma has it, unigrams with Metaspace."""
    level = tokenizers.Tokenizer(models.BPE())
    level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    level.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings: dict[str, Any] = {"show_progress": False, "initial_alphabet": alphabet}
    _train(level, trainers.BpeTrainer(vocab_size=280, special_tokens=special, **settings))
    gemma = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    gemma.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    _train(gemma, trainers.BpeTrainer(vocab_size=300, show_progress=False,
                                      special_tokens=[*GEMMA, *BYTES]))  # fmt: skip
    unigram = tokenizers.Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    unigram.decoder = decoders.Metaspace(prepend_scheme="always")
    _train(unigram, trainers.UnigramTrainer(vocab_size=60, show_progress=False,
                                            special_tokens=["<unk>", "</s>"],
                                            unk_token="<unk>"))  # fmt: skip
    names = {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|end_of_text|>"}}
    for name, spec in (
        ("byte-level", json.loads(level.to_str())),
        ("gemma", _as_gemma(json.loads(gemma.to_str()))),
        ("unigram", json.loads(unigram.to_str())),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "byte-level" / "tokenizer_config.json").write_text(json.dumps(names))


def _train(library: tokenizers.Tokenizer, trainer: Any) -> None:
    library.train_from_iterator(SENTENCES, trainer)


def _as_gemma(spec: dict[str, Any]) -> dict[str, Any]:
    """Spaces replaced by U+2581 in front, and back again behind; bytes are no added tokens."""
    rows = [row for row in spec["added_tokens"] if row["content"] in GEMMA]
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    return spec | {
        "added_tokens": rows,
        "model": spec["model"] | {"byte_fallback": True},
        "pre_tokenizer": None,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}],
        },
    }
