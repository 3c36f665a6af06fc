"""The tokenizer: special ids, round trips, the ids of one sentence."""

from collections.abc import Iterator

from ...text import Tokenizer
from .lines import Line, judged, told

SENTENCE = "The wind rose, and 12 boats left Genoa."
LINES = (
    "Well, Prince, so Genoa and Lucca are now just family estates.",
    "  two spaces, a tab\tand a new line\nthen “curly” quotes, café, naïve, 1805",
    "def f(x):\n    return x ** 2  # пример, 例, 🙂",
    "<start_of_turn>user is text here, not a marker<eos>",
)
GEMMA = 256_000  # pieces of Gemma's vocabulary, which the published models have
GEMMA_IDS = {  # of Gemma's tokenizer.model, as published
    "pad": 0,
    "eos": 1,
    "bos": 2,
    "unk": 3,
    "<start_of_turn>": 106,
    "<end_of_turn>": 107,
}


def check_tokenizer(tokenizer: Tokenizer, rows: int) -> Iterator[Line]:
    """rows: of the model's embedding."""
    found = special_ids(tokenizer)
    figure = ", ".join(f"{name} {number}" for name, number in found.items())
    inside = all(number is None or 0 <= number < rows for number in found.values())
    name = "special ids"
    if tokenizer.vocab_size == GEMMA:
        limit = ", ".join(f"{piece} {number}" for piece, number in GEMMA_IDS.items())
        yield judged(name, found == GEMMA_IDS, figure, limit, "Gemma's vocabulary")
    else:
        right = inside and found["eos"] is not None
        yield judged(name, right, figure, f"below {rows:,}, an eos", "not Gemma's vocabulary")
    fits = tokenizer.vocab_size <= rows
    yield judged("pieces", fits, f"{tokenizer.vocab_size:,}", f"at most {rows:,}")
    wrong = [text for text in LINES if tokenizer.decode(tokenizer.encode(text)) != text]
    figure = f"{len(LINES) - len(wrong)} of {len(LINES)} lines"
    note = f"not {wrong[0]!r}" if wrong else "text, ids, text: the same characters"
    yield judged("round trip", not wrong, figure, "all", note)
    yield told("ids of a sentence", str(tokenizer.encode(SENTENCE)), SENTENCE)
    yield told("fingerprint of the tokenizer", tokenizer.fingerprint)


def special_ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """By the names of GEMMA_IDS; None where the vocabulary has none."""
    unknown = [i for i in range(min(16, tokenizer.vocab_size)) if tokenizer.piece(i) == "<unk>"]
    return {
        "pad": tokenizer.pad_id,
        "eos": tokenizer.eos_id,
        "bos": tokenizer.bos_id,
        "unk": unknown[0] if unknown else None,
        "<start_of_turn>": tokenizer.special_id("<start_of_turn>"),
        "<end_of_turn>": tokenizer.special_id("<end_of_turn>"),
    }
