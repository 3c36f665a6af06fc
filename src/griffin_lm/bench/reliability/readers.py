"""The table of readers. A new one is its row here, and its good files in `seeds`."""

import hashlib
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from ...checkpoints import detect, load_model, read_config
from ...checkpoints.deepmind.orbax import RATIO, SLACK
from ...errors import GriffinError
from ...inference.bookmark import Bookmark, bookmark_of
from ...inference.instruction import is_instruction_tuned, read_stops
from ...layers.quantized import matrices, stored_tensors
from ...models import Griffin, ModelConfig, State
from ...models.state_file import read_note
from ...text import Tokenizer, load_tokenizer
from . import seeds
from .checksums import damage_header, repair_checkpoint, repair_orbax, repair_state
from .damage import damage_bytes
from .damage_json import damage_json
from .damage_protobuf import damage_protobuf
from .damage_zip import damage_pickle, damage_zip
from .reader import Reader

_OPEN = {"window": 4, "logit_cap": 30.0, "scale_embeddings": True}
_LARGEST_RUN = 4096  # a model with a setting above this is not run: it may be large by right
_TEXTS = ("the griffin  sat", " é\n<eos> <0x41>\U0001f985", "a")


class HalfBuilt(AssertionError):
    """A reader returned something that cannot be used."""


def holds(condition: bool, what: str) -> None:
    """Raises HalfBuilt unless the condition holds."""
    if not condition:
        raise HalfBuilt(what)  # never leaves the worker: it is counted there


# ---- checkpoints


def read_checkpoint(folder: Path) -> Griffin:
    """Every way into a folder: its format, its config, its weights."""
    detect(folder)
    # what the shapes of DeepMind's files cannot tell, where no config.json does
    given = None if (folder / "config.json").exists() else _OPEN
    config = read_config(folder, given)
    model = load_model(folder, config=given)
    holds(model.config == config, "read_config and load_model disagree")
    return model


def describe_model(model: Griffin) -> str:
    """A digest of config and weights."""
    digest = hashlib.blake2b(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for name, parameter in stored_tensors(model).items():
        raw = parameter.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def use_model(model: Griffin) -> None:
    """Its parameters are those of its config; a small one runs."""
    wanted = {n: tuple(p.shape) for n, p in Griffin(model.config, device="meta").named_parameters()}
    found = {n: tuple(p.shape) for n, p in model.named_parameters()}
    found |= {n: tuple(m.shape) for n, m in matrices(model).items()}
    holds(wanted == found, "parameters")
    for name, parameter in model.named_parameters():
        holds(not parameter.is_meta and parameter.dtype.is_floating_point, f"{name} is no weight")
    holds(not any(tensor.is_meta for tensor in model.buffers()), "a matrix is not all there")
    if _small(model.config):
        logits, state = model(torch.tensor([[1, 0, 1]]) % model.config.vocab)
        holds(logits is not None and logits.shape == (1, 3, model.config.vocab), "logits")
        holds(state.tokens.tolist() == [3], "the state has not read three tokens")


def _small(config: ModelConfig) -> bool:
    rows = [config.to_dict(), *(mixer.to_dict() for mixer in config.pattern)]
    return all(v <= _LARGEST_RUN for row in rows for v in row.values() if type(v) is int)


# ---- states

Saved = tuple[State, Bookmark | None]


@cache
def _model() -> Griffin:
    return seeds.model(config=seeds.EVERY)


def read_state(folder: Path) -> Saved:
    """The state of the model of the good files, and the note in it."""
    path = folder / "session.state"
    mark = bookmark_of(read_note(path), path)
    return State.load(path, _model()), mark


def _tensors(state: State) -> list[torch.Tensor]:
    found = [tensor for layer in state.layers for tensor in layer]
    found += [state.read, state.position, state.due]
    return found if state.pending is None else [*found, state.pending]


def describe_state(saved: Saved) -> str:
    """A digest of all tensors. (The note has no checksum: it says how a reading goes on.)"""
    digest = hashlib.blake2b()
    for tensor in _tensors(saved[0]):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def use_state(saved: Saved) -> None:
    """Its tensors are those of the model's state, and the model reads on from it."""
    state, model = saved[0], _model()
    like = model.empty_state(state.batch_size)
    if state.pending is not None:
        like = like.with_pending([-1] * state.batch_size)
    for mine, wanted in zip(_tensors(state), _tensors(like), strict=True):
        grown = wanted.dim() > 1 and not wanted.shape[1]  # a cache: as long as what was read
        fixed = 2 if grown else 1
        holds(mine.shape[fixed:] == wanted.shape[fixed:] and mine.dtype == wanted.dtype, "shapes")
        holds(mine.shape[0] == state.batch_size, "rows")
    holds(min(state.tokens.tolist(), default=0) >= 0, "a negative number of tokens")
    tokens = torch.ones(state.batch_size, 3, dtype=torch.int64)
    logits, after = model(tokens, state=state)
    holds(logits is not None and logits.shape[:2] == tokens.shape, "logits")
    holds(bool((after.tokens >= state.tokens + 3).all()), "the tokens were not counted")


# ---- vocabularies


def describe_tokenizer(tokenizer: Tokenizer) -> str:
    """The fingerprint, and what it makes of some texts."""
    return f"{tokenizer.fingerprint} {[_encode(tokenizer, text) for text in _TEXTS]}"


def _encode(tokenizer: Tokenizer, text: str, **options: bool) -> list[int]:
    """Its ids; [] where the vocabulary says that it cannot write the text."""
    try:
        return tokenizer.encode(text, **options)
    except GriffinError:
        return []


def _in_pieces(tokenizer: Tokenizer, text: str) -> list[int]:
    """As _encode, a character at a time."""
    try:
        encoder = tokenizer.encoder()
        ids = [token for letter in text for token in encoder.feed(letter)]
        return [*ids, *encoder.finish()]
    except GriffinError:
        return []


def use_tokenizer(tokenizer: Tokenizer) -> None:
    """Ids are in range, every id decodes, special ids stay out of plain text."""
    size = tokenizer.vocab_size
    holds(size > 0, "no pieces")
    for token in (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, *tokenizer.stop_ids):
        holds(token is None or 0 <= token < size, f"special id {token} of {size}")
    for text in _TEXTS:
        for continues in (False, True):
            ids = _encode(tokenizer, text, bos=False, continues=continues)
            holds(all(0 <= token < size for token in ids), "an id outside the vocabulary")
            holds(tokenizer.special_ids.isdisjoint(ids), "plain text gave a special id")
            tokenizer.decode(ids).encode()
        _encode(tokenizer, text, markers=True)
        holds(_in_pieces(tokenizer, text) == _encode(tokenizer, text), "ids depend on the cuts")
    for token in range(min(size, 2000)):
        tokenizer.decode([token]).encode()
        tokenizer.piece(token).encode("utf-8", "surrogatepass")


# ---- what stands beside


def read_settings(folder: Path) -> tuple[bool, tuple[int, ...]]:
    """Whether a checkpoint takes turns, and where it stops."""
    return is_instruction_tuned(folder), read_stops(folder, seeds.CONFIG.vocab)


def use_settings(found: tuple[bool, tuple[int, ...]]) -> None:
    """A truth, and ids of the vocabulary."""
    holds(type(found[0]) is bool, "no truth")
    holds(all(type(n) is int and 0 <= n < seeds.CONFIG.vocab for n in found[1]), "no ids")


# ---- the table

_TENSORS = ("*.safetensors", (damage_bytes, damage_bytes, damage_header))
_JSON = (damage_bytes, damage_json, damage_json, damage_json)
_OWN = partial(seeds.checkpoints, "griffin")
_THEIRS = partial(seeds.checkpoints, "huggingface")


def _checkpoint(name: str, make: Any, damage: Any, **more: Any) -> Reader:
    return Reader(name, make, damage, read_checkpoint, describe_model, use_model, **more)


READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        _checkpoint("safetensors", _OWN, (_TENSORS,), repair=repair_checkpoint, exact=True),
        _checkpoint("safetensors-huggingface", _THEIRS, (_TENSORS,)),
        _checkpoint(
            "config", _OWN, (("config.json", _JSON),), repair=repair_checkpoint, exact=True
        ),
        _checkpoint("config-huggingface", _THEIRS, (("config.json", _JSON),)),
        _checkpoint("index", seeds.indexed, (("*.index.json", _JSON),)),
        _checkpoint(
            "torch",
            seeds.torch_files,
            (
                ("*.pt", (damage_bytes, damage_bytes, damage_zip, damage_pickle, damage_pickle)),
                ("config.json", _JSON),
            ),
        ),
        _checkpoint(
            "orbax",
            seeds.orbax_folders,
            (
                ("manifest.ocdbt", (damage_bytes,)),
                ("d/*", (damage_bytes,)),
                (".zarray", _JSON),
                ("[0-9]*", (damage_bytes,)),
                ("config.json", _JSON),
            ),
            repair=repair_orbax,
            package="tensorstore",
            # what compressed files may say, twice: tensor and parameter (checkpoints/deepmind)
            fixed=(16 << 20) + 2 * SLACK,
            per_byte=128 + 2 * RATIO,
        ),
        Reader(
            "settings",
            seeds.settings,
            (("*.json", _JSON),),
            read_settings,
            str,
            use_settings,
        ),
        Reader(
            "state",
            seeds.states,
            (("*.state", _TENSORS[1]),),
            read_state,
            describe_state,
            use_state,
            repair=repair_state,
            exact=True,
        ),
        Reader(
            "tokenizer-sentencepiece",
            seeds.sentencepieces,
            (("tokenizer.model", (damage_bytes, damage_protobuf, damage_protobuf)),),
            load_tokenizer,
            describe_tokenizer,
            use_tokenizer,
        ),
        Reader(
            "tokenizer-json",
            seeds.json_vocabularies,
            (("*.json", _JSON),),
            load_tokenizer,
            describe_tokenizer,
            use_tokenizer,
            per_byte=256,  # the library's JSON, then its tables, beside Python's JSON
        ),
    )
}
