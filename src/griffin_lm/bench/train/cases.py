"""What is measured: models, lengths, and how many rows make a step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...errors import ConfigError
from ...mixers import RGLRU, LocalAttention
from ...models.config import ModelConfig

VOCABULARY = 32_000


@dataclass(frozen=True)
class Case:
    """One comparison. length: tokens of a row; rows: of a step.

    peers: kinds of transformers' models of the same shape or size. parts: also where a step's time
    goes. lengths: several lengths in the same
    rounds, `rows` times `length` tokens a step each.
    """

    name: str
    about: str
    model: ModelConfig
    length: int
    rows: int = 1
    peers: tuple[str, ...] = ()
    parts: bool = False
    lengths: tuple[int, ...] = ()

    def spans(self) -> list[tuple[int, int]]:
        """(length, rows) of every step measured: the same number of tokens in each."""
        whole = self.length * self.rows
        return [(length, whole // length) for length in self.lengths or (self.length,)]


def cases(scale: str, only: Sequence[str]) -> list[Case]:
    """The cases of a scale, "full" or "toy". Raises ConfigError for a name that there is not."""
    if scale not in _SCALES:
        raise ConfigError(f"scale must be {' or '.join(_SCALES)}, not {scale!r}")
    known = {case.name: case for case in _SCALES[scale]}
    if wrong := [name for name in only if name not in known]:
        raise ConfigError(f"no case {wrong[0]!r}; there are: {', '.join(known)}")
    return [case for name, case in known.items() if not only or name in only]


def _griffin(width: int, recurrence: int, layers: int, heads: int, window: int) -> ModelConfig:
    """Griffin with RecurrentGemma's settings, and as many gate blocks as query heads.

    So transformers can build the same model: it knows one number of heads for both.
    """
    recurrent = RGLRU(width=recurrence, heads=heads)
    attention = LocalAttention(heads=heads, head_dim=width // heads, window=window)
    return ModelConfig(
        vocab=VOCABULARY,
        width=width,
        mlp_width=3 * width,
        layers=layers,
        pattern=(recurrent, recurrent, attention),
        logit_cap=30.0,
        scale_embeddings=True,
    )


_HUNDRED = _griffin(768, 1024, 12, heads=8, window=1024)  # the sizes of griffin-100m
_TEN = _griffin(192, 256, 9, heads=4, window=1024)
_TOY = replace(_griffin(32, 64, 3, heads=2, window=16), vocab=256)
_BOTH = ("RecurrentGemma", "Llama")

_SCALES: dict[str, tuple[Case, ...]] = {
    "full": (
        Case("100m", "100M Griffin", _HUNDRED, 1024, peers=_BOTH, parts=True),
        Case("10m", "10M Griffin", _TEN, 4096, peers=_BOTH[:1], parts=True),
        Case(
            "lengths",
            "10M Griffin, 16,384 tokens a step",
            _TEN,
            16_384,
            lengths=(2048, 8192, 16_384),
        ),
    ),
    "toy": (
        Case("100m", "toy Griffin", _TOY, 32, peers=_BOTH, parts=True),
        Case("lengths", "toy Griffin, 64 tokens a step", _TOY, 64, lengths=(32, 64)),
    ),
}
