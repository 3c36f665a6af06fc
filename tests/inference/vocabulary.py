"""A small SentencePiece vocabulary made on the spot, with fledgling's markers and byte fallback."""

import io
from functools import cache

import sentencepiece

from griffin_lm.text.sentencepiece_tokenizer import SentencePieceTokenizer

SENTENCES = (
    "The wind rose in the night and the old house answered it in every board.",
    "She said nothing, for there was nothing to say, and the lamp burned lower.",
    "Where is the key? It lies beneath the stone by the garden door, he wrote.",
    "Long before morning the road was white with frost, and nobody had passed.",
    "They counted the ships: one, two, three, and then the fog came in again.",
    "Out of the cellar came a sound as of water running over iron and glass.",
)
MARKERS = ["<user>", "<model>", "<end>", "<note>", "</note>"]


@cache
def vocabulary(
    dummy_prefix: bool = False, markers: tuple[str, ...] = tuple(MARKERS)
) -> SentencePieceTokenizer:
    """384 pieces: 3 control ones, markers (fledgling's), 256 bytes, letters, some words."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=384,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=dummy_prefix,
        user_defined_symbols=list(markers),
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())
