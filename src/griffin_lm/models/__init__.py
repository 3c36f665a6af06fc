"""Models: a config, a stack of residual blocks, and the state that goes in and comes out."""

from .config import ModelConfig
from .griffin import Griffin, build, resolve_config
from .origin import Fingerprint, Origin, fingerprint_tensors
from .presets import PRESETS
from .state import State

__all__ = [
    "PRESETS",
    "Fingerprint",
    "Griffin",
    "ModelConfig",
    "Origin",
    "State",
    "build",
    "fingerprint_tensors",
    "resolve_config",
]
