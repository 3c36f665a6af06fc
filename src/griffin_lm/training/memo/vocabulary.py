"""fledgling's vocabulary: SentencePiece BPE over the training books, every memo value one piece."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from ...evals.memo_text import FIELDS, MARKS, VALUES

_LINE = 3000  # characters; the trainer skips lines above 4192 bytes
_REPEATS = 6000  # of each value: a word this frequent in the sample is sure of its merges
_MEMO_WORDS = (
    " The name is the place is the number is There is no such note. What note name place number"
)
# paragraph breaks are frequent, and the trainer, which works line by line, never sees them
_BREAKS = ["\n\n", "\n"]


def train_vocabulary(texts: Iterable[str], path: Path, size: int, sample: int) -> None:
    """Writes a SentencePiece model of `size` pieces, trained on `sample` characters of texts."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(texts, sample),
        model_writer=model,
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=False,
        character_coverage=0.9995,
        user_defined_symbols=[*MARKS, *_BREAKS],
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    temporary = path.with_suffix(".part")
    temporary.write_bytes(model.getvalue())
    temporary.replace(path)


def _sentences(texts: Iterable[str], sample: int) -> Iterator[str]:
    texts = list(texts)
    share = sample // len(texts)
    for text in texts:
        middle = max(0, (len(text) - share) // 2)
        for line in text[middle : middle + share].split("\n"):
            for begin in range(0, len(line), _LINE):
                yield line[begin : begin + _LINE]
    for field in FIELDS:
        for value in VALUES[field]:
            line = f" {value}" * (_LINE // (len(value) + 1))
            for _ in range(-(-_REPEATS // (_LINE // (len(value) + 1)))):
                yield line
    for _ in range(300):
        yield _MEMO_WORDS * 20
