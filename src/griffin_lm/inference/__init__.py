"""Inference: a prompt goes in, text and the state after it come out."""

from .conversation import Conversation
from .generate import GenerateOptions, Generation, Output
from .language_model import LanguageModel, Stream, save
from .loading import load
from .reading import read_rows, read_tokens
from .reply import Reply
from .sampling import SamplingOptions

__all__ = [
    "Conversation",
    "GenerateOptions",
    "Generation",
    "LanguageModel",
    "Output",
    "Reply",
    "SamplingOptions",
    "Stream",
    "load",
    "read_rows",
    "read_tokens",
    "save",
]
