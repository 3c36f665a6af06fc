"""Everything that moves information along time. Adding a mixer is its file and its row here."""

from .base import Mixer, MixerConfig, MixerState, Span
from .global_attention import GlobalAttention
from .gru import GRU
from .local_attention import LocalAttention
from .lru import LRU
from .rg_lru import RGLRU
from .s6 import S6

MIXERS: dict[str, type[MixerConfig]] = {
    config.kind: config
    for config in (
        RGLRU,
        LRU,
        GRU,
        S6,
        LocalAttention,
        GlobalAttention,
    )
}

__all__ = [
    "GRU",
    "LRU",
    "MIXERS",
    "RGLRU",
    "S6",
    "GlobalAttention",
    "LocalAttention",
    "Mixer",
    "MixerConfig",
    "MixerState",
    "Span",
]
