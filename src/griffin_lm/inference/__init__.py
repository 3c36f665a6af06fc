"""Inference: a prompt goes in, text and the state after it come out."""

from .asking import ask
from .conversation import Conversation
from .generate import GenerateOptions, Generation, Output
from .language_model import LanguageModel, Stream, save
from .loading import load
from .reading import read_rows, read_tokens
from .reply import Reply
from .sampling import SamplingOptions
from .text_reader import Reading
from .text_reading import read_text

__all__ = [
    "Conversation",
    "GenerateOptions",
    "Generation",
    "LanguageModel",
    "Output",
    "Reading",
    "Reply",
    "SamplingOptions",
    "Stream",
    "ask",
    "load",
    "read_rows",
    "read_text",
    "read_tokens",
    "save",
]
