"""Everything that moves information along time. Adding a mixer is its file and its row here."""

from .base import Mixer, MixerConfig, MixerState, Span
from .local_attention import LocalAttention
from .rg_lru import RGLRU

MIXERS: dict[str, type[MixerConfig]] = {
    config.kind: config
    for config in (
        RGLRU,
        LocalAttention,
    )
}

__all__ = ["MIXERS", "RGLRU", "LocalAttention", "Mixer", "MixerConfig", "MixerState", "Span"]
