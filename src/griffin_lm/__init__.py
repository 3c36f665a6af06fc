"""griffin-lm: run, serve, fine-tune, pre-train and understand RecurrentGemma, Griffin and Hawk.

import griffin_lm as griffin
lm = griffin.load("fledgling")
print(lm.generate("It was a dark and stormy night").text)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints import FORMATS as FORMATS
    from .errors import GriffinError as GriffinError
    from .inference import LanguageModel as LanguageModel
    from .inference import load as load
    from .inference import save as save
    from .mixers import MIXERS as MIXERS
    from .models import PRESETS as PRESETS
    from .models import Griffin as Griffin
    from .models import ModelConfig as ModelConfig
    from .models import State as State
    from .models import build as build

__version__ = "0.1.0"

# name -> the module that has it; imported on first use, so that `griffin --help` needs no torch
_HOMES = {
    "FORMATS": "checkpoints",
    "Griffin": "models",
    "GriffinError": "errors",
    "LanguageModel": "inference",
    "MIXERS": "mixers",
    "ModelConfig": "models",
    "PRESETS": "models",
    "State": "models",
    "build": "models",
    "load": "inference",
    "save": "inference",
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Imports a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"griffin_lm has no {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
