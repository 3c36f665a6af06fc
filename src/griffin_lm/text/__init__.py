"""Tokenizers and turn templates. Knows no model; stands beside `checkpoints`."""

from griffin_lm.text.chat import (
    FLEDGLING,
    GEMMA,
    LLAMA_3,
    PLAIN,
    Turn,
    TurnTemplate,
    encode_turns,
    template_of,
)
from griffin_lm.text.encoder import StreamEncoder
from griffin_lm.text.stream import StreamDecoder
from griffin_lm.text.tokenizer import Tokenizer, check_vocabulary, load_tokenizer

__all__ = [
    "FLEDGLING",
    "GEMMA",
    "LLAMA_3",
    "PLAIN",
    "StreamDecoder",
    "StreamEncoder",
    "Tokenizer",
    "Turn",
    "TurnTemplate",
    "check_vocabulary",
    "encode_turns",
    "load_tokenizer",
    "template_of",
]
