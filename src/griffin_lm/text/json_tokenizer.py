"""`tokenizer.json`: vocabularies of the `tokenizers` library (Hugging Face folders).

Two ways of writing bytes are known: byte-level BPE (GPT-2, Llama 3: every piece is bytes, spelt
with 256 stand-in characters) and U+2581 for spaces with byte pieces `<0xAB>` (Gemma, Llama 2).

What the library does with control pieces in plain text (0.23): every added token is matched, unless
it is special and `encode_special_tokens` is set, which it is here; and learned merges can build one
all the same (the cropped Gemma file among the tests has such merges). What slips through that way
`Tokenizer.encode` cuts in two.
"""

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from griffin_lm.errors import TokenizerError
from griffin_lm.text import json_cuts, json_file
from griffin_lm.text.chat import MARKERS
from griffin_lm.text.cuts import CutRule
from griffin_lm.text.files import read_vocabulary
from griffin_lm.text.json_file import Rules
from griffin_lm.text.tokenizer import Tokenizer

BOS_NAMES = ("<bos>", "<s>", "<|begin_of_text|>")
EOS_NAMES = ("<eos>", "</s>", "<|end_of_text|>", "<|endoftext|>")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>")
STOP_NAMES = ("<|end_of_text|>", "<|endoftext|>")
UNKNOWN_TEXT = "\ufffd"


class JsonTokenizer(Tokenizer):
    """A `tokenizer.json`, with the `tokenizer_config.json` beside it where there is one.

    BOS, EOS and padding are those that `tokenizer_config.json` names, else the usual names among
    the control pieces. There is no BOS where it says so (`add_bos_token`), or where it is EOS and
    the file's post-processor does not put it in front (Mamba's vocabulary).

    Raises:
        TokenizerError: a file cannot be read, is damaged, or uses a scheme that is not known here.

    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        self._where = str(path)
        spec, named, files = self._read(path)
        added = json_file.added_tokens(spec, self._where)
        json_file.check_merges(spec, self._where)
        if spec["model"].get("dropout"):  # for training: the same text would give other ids
            spec = spec | {"model": spec["model"] | {"dropout": None}}
        unknown = json_file.unknown_piece(spec)
        # Plain text may produce the unknown piece, so it is no special one.
        specials = {
            token.content: token.id
            for token in added
            if (token.special or token.content in MARKERS) and token.content != unknown
        }
        self._rules: Rules = json_file.text_rules(spec, self._where)
        self._library = _open(spec, self._where)
        # Where a file does not say what its model is, the library tries one kind after the other.
        kind = type(self._library.model).__name__
        self._spec = spec | {"model": {"type": kind} | spec["model"]}
        vocabulary: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        largest = max(vocabulary.values(), default=-1)
        # Files may leave a few ids out, not most of them: such a number is a damaged one.
        if largest > 2 * len(vocabulary) + 10_000 or not vocabulary:
            raise TokenizerError(
                f"{path}: {len(vocabulary)} pieces and a largest id of {largest} do not fit "
                "together; copy or download tokenizer.json again"
            )
        pieces: list[str | None] = [None] * (1 + largest)
        for piece, token in vocabulary.items():
            pieces[token] = piece
        # The library decides an added token's id; where it is not the file's, the file is wrong.
        for token in added:
            if vocabulary.get(token.content) != token.id:
                raise TokenizerError(
                    f"{path}: the added token {token.content!r:.80} claims id {token.id}, which is "
                    f"not its id in the vocabulary ({vocabulary.get(token.content)}); "
                    "copy or download tokenizer.json again"
                )

        self._literal = {token.id for token in added}
        self._unknown_id = None if unknown is None else vocabulary.get(unknown)
        bos, eos, pad = (
            _special(named, key, specials, usual)
            for key, usual in (
                ("bos_token", BOS_NAMES),
                ("eos_token", EOS_NAMES),
                ("pad_token", PAD_NAMES),
            )
        )
        # GPT-2's way: one piece ends texts and could begin them, and nothing says that it does
        ends_only = bos == eos and bos is not None and not json_file.begins_with(spec, pieces[bos])
        if named.get("add_bos_token") is False or ends_only:
            bos = None
        super().__init__(
            pieces=pieces,
            specials=specials,
            bos_id=bos,
            eos_id=eos,
            pad_id=pad,
            extra_stops=[specials[name] for name in STOP_NAMES if name in specials],
            leading_space=self._rules.leading_space,
            files=files,
        )

    def _read(self, path: Path) -> tuple[dict[str, Any], Mapping[str, Any], dict[str, bytes]]:
        """Returns (tokenizer.json, tokenizer_config.json or {}, the files' bytes by name)."""
        files = {"tokenizer.json": read_vocabulary(path)}
        spec = json_file.read_object(files["tokenizer.json"], self._where)
        beside = path.parent / "tokenizer_config.json"
        if not beside.is_file():
            return spec, {}, files
        files[beside.name] = read_vocabulary(beside)
        return spec, json_file.read_object(files[beside.name], str(beside)), files

    @cached_property
    def _continuing(self) -> tokenizers.Tokenizer:
        """The same vocabulary, opened without a prefix in front of the text."""
        return _open(json_file.without_prefix(self._spec), self._where)

    def _encode_text(self, text: str, continues: bool) -> list[int]:
        library = self._continuing if continues else self._library
        try:
            return list(library.encode(text, add_special_tokens=False).ids)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # as in _open
            raise TokenizerError(
                f"{self._where}: the tokenizers library cannot write this text with this "
                f"vocabulary ({str(error)[:200]}); copy or download tokenizer.json again"
            ) from error

    def _find_cuts(self) -> CutRule:
        normalizer = self._continuing.normalizer
        normalize = normalizer.normalize_str if normalizer is not None else str
        vocabulary = self._continuing.get_vocab(with_added_tokens=True)
        return json_cuts.cut_rule(self._spec, normalize, vocabulary)

    def _text_of(self, token: int) -> str | bytes:
        if token == self._unknown_id:
            return UNKNOWN_TEXT
        piece = self._pieces[token] or ""
        return piece if token in self._literal else self._rules.text_of(piece)


def _open(spec: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps(spec))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are BaseException, not Exception
        raise TokenizerError(
            f"{where}: the tokenizers library cannot use this file ({str(error)[:200]}); "
            "copy or download tokenizer.json again"
        ) from error
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True  # special pieces in plain text are plain text
    return library


def _special(
    named: Mapping[str, Any], key: str, specials: Mapping[str, int], usual: tuple[str, ...]
) -> int | None:
    """Returns the id that a role's name stands for: the one in the config, else a usual one."""
    if key in named:
        value = named[key]
        name = value.get("content") if isinstance(value, dict) else value
        return specials.get(name) if isinstance(name, str) else None
    return next((specials[name] for name in usual if name in specials), None)
