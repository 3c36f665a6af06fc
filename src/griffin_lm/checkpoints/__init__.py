"""Weights on disk: names and bytes. It knows models; models never know it."""

from .detection import FORMATS, folders_beside
from .format import Format
from .loading import (
    detect,
    load_model,
    open_source,
    read_config,
    read_parameters,
    saved_quantization,
)
from .saving import save_model
from .source import Source

__all__ = [
    "FORMATS",
    "Format",
    "Source",
    "detect",
    "folders_beside",
    "load_model",
    "open_source",
    "read_config",
    "read_parameters",
    "save_model",
    "saved_quantization",
]
