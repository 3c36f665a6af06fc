"""`tokenizer.model`: SentencePiece vocabularies (RecurrentGemma, Gemma, fledgling, Mistral).

What the library does with control pieces in plain text (0.2.3): CONTROL pieces such as `<eos>` are
never matched; USER_DEFINED ones, which Gemma's turn markers are, always are. So the markers are
opened as CONTROL here, and the text "<start_of_turn>" becomes ordinary pieces.
"""

import os
from functools import cached_property
from pathlib import Path

import sentencepiece

from griffin_lm.errors import TokenizerError
from griffin_lm.text import sentencepiece_cuts, sentencepiece_file
from griffin_lm.text.chat import MARKERS
from griffin_lm.text.cuts import CutRule
from griffin_lm.text.files import read_vocabulary
from griffin_lm.text.sentencepiece_file import Kind, Malformed, ModelType, SentencePieceFile
from griffin_lm.text.stream import LeadingSpace
from griffin_lm.text.tokenizer import Tokenizer

SPACE = "\u2581"
"""How pieces write a space."""


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece vocabulary, from a path or from the file's bytes.

    Raises:
        TokenizerError: the file cannot be read, is damaged, or is something else.

    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        where = "the bytes given" if isinstance(source, bytes) else str(source)
        data = source if isinstance(source, bytes) else read_vocabulary(Path(source))
        file = _read(data, where)
        marked = {
            token: Kind.CONTROL
            for token, (piece, kind) in enumerate(zip(file.pieces, file.kinds, strict=True))
            if kind is Kind.USER_DEFINED and piece in MARKERS
        }
        self._file = file
        self._where = where
        self._data = sentencepiece_file.with_kinds(data, file, marked)
        self._processor = _open(self._data, where)
        special = {i for i, kind in enumerate(file.kinds) if kind is Kind.CONTROL} | set(marked)
        bos, eos, pad = (
            None if token < 0 else token
            for token in (
                self._processor.bos_id(),
                self._processor.eos_id(),
                self._processor.pad_id(),
            )
        )
        super().__init__(
            pieces=file.pieces,
            specials={file.pieces[token]: token for token in sorted(special)},
            bos_id=bos,
            eos_id=eos,
            pad_id=pad,
            leading_space=_leading_space(file),
            files={"tokenizer.model": data},
        )

    @cached_property
    def _continuing(self) -> sentencepiece.SentencePieceProcessor:
        """The same vocabulary, opened so that text is taken as it stands."""
        if not (self._file.dummy_prefix or self._file.remove_extra_spaces):
            return self._processor
        return _open(sentencepiece_file.without_prefix(self._data), self._where)

    def _encode_text(self, text: str, continues: bool) -> list[int]:
        processor = self._continuing if continues else self._processor
        if self._file.model_type != ModelType.UNIGRAM:
            return list(processor.encode(text, out_type=int))
        # Sums of scores stay short, so rounding far into a text decides nothing (see the cuts).
        first, *rest = self.cuts.atoms(text)
        ids: list[int] = list(processor.encode(first, out_type=int))
        if rest and not self.cuts.prefix_again:
            processor = self._continuing
        for part in processor.encode(rest, out_type=int):
            ids += part
        return ids

    def _find_cuts(self) -> CutRule:
        return sentencepiece_cuts.cut_rule(self._file, self._continuing.normalize)

    def _text_of(self, token: int) -> str | bytes:
        kind = self._file.kinds[token]
        if kind is Kind.BYTE:
            return bytes((int(self._file.pieces[token][3:5], 16),))  # "<0xAB>"
        if kind is Kind.UNKNOWN:
            return self._file.unknown_text
        return self._file.pieces[token].replace(SPACE, " ")


def _read(data: bytes, where: str) -> SentencePieceFile:
    try:
        file = sentencepiece_file.read(data)
    except Malformed as error:
        raise TokenizerError(
            f"{where}: not a SentencePiece vocabulary, or a damaged one ({error}); "
            "copy or download tokenizer.model again"
        ) from None
    for token, (piece, kind) in enumerate(zip(file.pieces, file.kinds, strict=True)):
        if kind is Kind.BYTE and piece not in _BYTE_PIECES:
            raise TokenizerError(f"{where}: damaged: piece {token}, {piece!r:.40}, is no byte")
    if file.space_as_suffix:
        raise TokenizerError(
            f"{where}: trained with treat_whitespace_as_suffix, which is not supported; "
            "train the vocabulary without it"
        )
    return file


def _open(data: bytes, where: str) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data)
        processor.encode("a b")  # a broken table of characters shows itself only here
    except Exception as error:
        raise TokenizerError(
            f"{where}: SentencePiece cannot use this vocabulary ({str(error)[:200]}); "
            "copy or download tokenizer.model again"
        ) from error
    return processor


def _leading_space(file: SentencePieceFile) -> LeadingSpace:
    if file.remove_extra_spaces:
        return LeadingSpace.DROP_ALL
    return LeadingSpace.DROP_ONE if file.dummy_prefix else LeadingSpace.KEEP


_BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
