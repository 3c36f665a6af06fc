"""What every tokenizer can do, whatever file it comes from, and how to open one.

Plain text never becomes a control id or a turn marker: "<eos>" typed by a user is five characters.
Markers are made on purpose, by `encode(..., markers=True)`, `special_id` or `chat.encode_turns`.
"""

import hashlib
import operator
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from griffin_lm.errors import InputError, TokenizerError
from griffin_lm.text.chat import END_MARKERS, TurnTemplate, encode_parts, template_of
from griffin_lm.text.cuts import CutRule
from griffin_lm.text.encoder import StreamEncoder, Where
from griffin_lm.text.files import read_vocabulary, write_aside
from griffin_lm.text.stream import LeadingSpace, StreamDecoder, Surface


class Tokenizer(ABC):
    """Text to ids and back.

    A subclass reads its file, calls `__init__` with what it found, and supplies `_encode_text` and
    `_text_of`.

    Args:
        pieces: every id's piece, by id; None where the file leaves an id out.
        specials: ids that plain text must not produce and that give no text, by piece.
        bos_id: beginning of sequence, or None.
        eos_id: end of sequence, or None.
        pad_id: padding, or None.
        extra_stops: further ids at which generation stops.
        leading_space: what decoding does to spaces at the start of a text.
        files: name -> bytes, written again by `save`.

    """

    def __init__(
        self,
        *,
        pieces: Sequence[str | None],
        specials: Mapping[str, int],
        bos_id: int | None,
        eos_id: int | None,
        pad_id: int | None,
        extra_stops: Iterable[int] = (),
        leading_space: LeadingSpace,
        files: Mapping[str, bytes],
    ) -> None:
        self.vocab_size = len(pieces)
        """Ids are 0 to vocab_size - 1."""
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.pad_id = pad_id
        ends = [specials[name] for name in END_MARKERS if name in specials]
        first = [] if eos_id is None else [eos_id]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([*first, *ends, *extra_stops]))
        """Ids that end a generation: EOS first, then ends of turn."""
        self._pieces = pieces
        self._specials = dict(specials)
        self._silent = frozenset(self._specials.values())
        self._leading_space = leading_space
        self._files = dict(files)

    @abstractmethod
    def _encode_text(self, text: str, continues: bool) -> list[int]:
        """Returns the ids of plain text that is not empty."""

    @abstractmethod
    def _text_of(self, token: int) -> str | bytes:
        """Returns what an id in range that is not special adds to the text."""

    @abstractmethod
    def _find_cuts(self) -> CutRule:
        """Returns the safe places of this vocabulary."""

    @cached_property
    def cuts(self) -> CutRule:
        """Where a text may be cut so that the ids of the parts are those of the whole."""
        return self._find_cuts()

    @cached_property
    def turn(self) -> TurnTemplate | None:
        """The turn template whose markers this vocabulary has, or None."""
        return template_of(self)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over pieces, ids and special ids: equal for equal vocabularies."""
        digest = hashlib.sha256(b"griffin-lm vocabulary 1\n")
        for piece in self._pieces:
            raw = b"" if piece is None else piece.encode("utf-8", "surrogatepass")
            # The length in front keeps ("ab", "c") and ("a", "bc") apart.
            digest.update(b"-" if piece is None else b"%d:" % len(raw) + raw)
        names = {"bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id}
        digest.update(repr((names, self.stop_ids)).encode())
        return digest.hexdigest()

    def encode(
        self, text: str, bos: bool = True, *, markers: bool = False, continues: bool = False
    ) -> list[int]:
        """Returns the ids of a text.

        Args:
            text: any text; control pieces and markers in it are taken as the characters they are.
            bos: begin with BOS where the vocabulary has one.
            markers: turn the vocabulary's turn markers in `text` into their ids. For text of one's
                own only: a stranger's text could open and close turns.
            continues: the text follows an earlier one, so no dummy prefix is put in front.

        Raises:
            InputError: not a string, or one that is no valid Unicode (a lone surrogate).

        """
        try:
            text.encode()
        except AttributeError:
            raise InputError(f"encode takes a string, not {type(text).__name__}") from None
        except UnicodeEncodeError as error:
            raise InputError(
                f"the text has a lone surrogate (U+{ord(text[error.start]):04X}) at character "
                f"{error.start}, which is half a character; read the text with the right encoding "
                "or with errors='replace'"
            ) from None
        if markers:
            return encode_parts(self, self.split_markers(text), bos=bos, continues=continues)
        ids = self._encode_text(text, continues) if text else []
        if not self._silent.isdisjoint(ids):
            # part by part, so that only what stands near a control piece is encoded differently
            ids = []
            for part in self.cuts.atoms(text):
                ids += self._encode_atom(part, continues)
                continues = continues or not self.cuts.prefix_again
        return [self.bos_id, *ids] if bos and self.bos_id is not None else ids

    def encoder(
        self,
        bos: bool = True,
        *,
        markers: bool = False,
        continues: bool = False,
        where: Where = Where.FIRST,
    ) -> StreamEncoder:
        """Returns an encoder that takes a text in pieces; all ids in a row are those of `encode`.

        Args:
            bos: as in `encode`.
            markers: as in `encode`.
            continues: as in `encode`.
            where: for the rest of a text, of which another encoder with the same arguments has
                taken so many `characters`: what its `where` was then.

        """
        rule = self.cuts
        if markers and rule.prefix_again:
            rule = CutRule(None, "turn markers change how it treats the spaces that follow")

        def encode(part: str, where: Where) -> list[int]:
            begins = where is Where.FIRST or (where is Where.NEXT and rule.prefix_again)
            inner = continues or not begins
            return self.encode(part, bos=False, markers=markers, continues=inner)

        begin = self.encode("", bos=bos and where is Where.FIRST)
        names = frozenset(self._specials) if markers else frozenset[str]()
        return StreamEncoder(encode, rule, begin, where, names)

    def decode(self, ids: Iterable[int], *, continues: bool = False) -> str:
        """Returns the text of ids; special ids give none, wrong bytes U+FFFD.

        Args:
            ids: token ids.
            continues: the ids follow earlier text, so a space at their start is kept.

        Raises:
            InputError: an id outside the vocabulary, named.

        """
        decoder = self.decoder(continues=continues)
        return "".join([decoder.feed(token) for token in ids]) + decoder.finish()

    def decoder(self, *, continues: bool = False) -> StreamDecoder:
        """Returns a decoder that takes one id at a time; `continues` as in `decode`."""
        return StreamDecoder(self._surface, LeadingSpace.KEEP if continues else self._leading_space)

    def piece(self, token: int) -> str:
        """Returns an id's piece as the vocabulary writes it ("" where the file leaves it out)."""
        return self._pieces[self._checked(token)] or ""

    def bytes_of(self, token: int) -> bytes:
        """Returns the UTF-8 that an id adds to a text; none for a special one."""
        surface = self._surface(token) or b""
        return surface.encode() if isinstance(surface, str) else surface

    def special_id(self, piece: str) -> int | None:
        """Returns the id of a control piece or turn marker, or None where there is none."""
        return self._specials.get(piece)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that plain text never produces and that give no text."""
        return self._silent

    def split_markers(self, text: str) -> list[str | int]:
        """Cuts a text at the vocabulary's special pieces: strings, and ids in their place."""
        if not self._specials:
            return [text] if text else []
        parts = self._special_pattern.split(text)
        return [self._specials.get(part, part) for part in parts if part]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the original files, byte for byte, under their usual names.

        Each is written aside and then renamed, so that nothing half-written has the name.

        Raises:
            TokenizerError: the folder cannot be written.

        """
        for name, data in self._files.items():
            write_aside(Path(folder) / name, data)

    def _encode_atom(self, text: str, continues: bool) -> list[int]:
        ids = self._encode_text(text, continues) if text else []
        return ids if self._silent.isdisjoint(ids) else self._encode_cut(text, continues)

    def _encode_cut(self, text: str, continues: bool) -> list[int]:
        """Encodes plain text that the library takes for special: cut inside each such piece."""
        segments = [""]
        for part in self._special_pattern.split(text):
            if part in self._specials:
                segments[-1] += part[0]
                segments.append(part[1:])
            else:
                segments[-1] += part
        ids: list[int] = []
        for segment in segments:
            ids += self._encode_text(segment, continues) if segment else []
            continues = True
        for token in ids:
            if token in self._silent:
                raise InputError(
                    f"the text holds {self.piece(token)!r} in a spelling that this vocabulary "
                    "cannot write as plain text; remove it from the text"
                )
        return ids

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._specials, key=len, reverse=True)
        return re.compile("(" + "|".join(re.escape(name) for name in longest_first) + ")")

    def _surface(self, token: int) -> Surface:
        token = self._checked(token)
        return None if token in self._silent else self._text_of(token)

    def _checked(self, token: int) -> int:
        try:
            token = operator.index(token)
        except TypeError:
            raise InputError(f"a token id is an integer, not {token!r}") from None
        if not 0 <= token < self.vocab_size:
            raise InputError(
                f"token id {token} is outside the vocabulary of {self.vocab_size} ids "
                f"(0 to {self.vocab_size - 1}); does the tokenizer belong to this model?"
            )
        return token


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Opens a tokenizer: a file, or a folder with `tokenizer.model` or else `tokenizer.json`.

    What a file is, its content tells: JSON begins with "{", Llama 3's `tokenizer.model` with a
    piece in base64 and its rank, anything else is SentencePiece.

    Raises:
        TokenizerError: nothing there, or not readable as a vocabulary; the file is named.

    """
    from griffin_lm.text.json_tokenizer import JsonTokenizer
    from griffin_lm.text.sentencepiece_tokenizer import SentencePieceTokenizer
    from griffin_lm.text.tiktoken_file import is_tiktoken
    from griffin_lm.text.tiktoken_tokenizer import TiktokenTokenizer

    path = Path(path)
    if path.is_dir():
        found = [path / name for name in ("tokenizer.model", "tokenizer.json")]
        found = [file for file in found if file.exists()]
        if not found:
            raise TokenizerError(
                f"{path}: no tokenizer.model and no tokenizer.json in this folder; "
                "copy the model's tokenizer there, or name its file"
            )
        path = found[0]
    data = read_vocabulary(path)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        return JsonTokenizer(path)
    return TiktokenTokenizer(path) if is_tiktoken(data) else SentencePieceTokenizer(path)


def check_vocabulary(tokenizer: Tokenizer, config_vocab: int, where: str) -> None:
    """Refuses a tokenizer that has more ids than the model has rows; fewer are fine (padding).

    Args:
        tokenizer: the tokenizer.
        config_vocab: rows of the model's embedding.
        where: the file or folder, for the message.

    Raises:
        TokenizerError: ids of the tokenizer have no row in the model.

    """
    if tokenizer.vocab_size > config_vocab:
        raise TokenizerError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids and the model only "
            f"{config_vocab}: it belongs to another model; use the one published with the weights"
        )
