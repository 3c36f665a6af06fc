"""What fine-tuning is told: a training config with LoRA's settings; `--set` reaches every field."""

from dataclasses import dataclass

from ...errors import ConfigError
from ..config import TrainConfig

# where peak_rate is 0: LoRA's B begins at zero and stands further rates (Hu et al. 2021)
RATES = {False: 2e-5, True: 2e-4}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """Everything that decides a run, besides the model and the rows.

    Length: `epochs` over the rows, or `tokens`, or `steps`, the last that is given.
    targets: "all" (linear maps of mixers and MLPs), or names of some, ours (`linear_x`, `q`) or
    Hugging Face's (`q_proj`). gates: also the block-diagonal gates of RG-LRUs.
    """

    epochs: float = 3.0
    tokens: int = 0
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0  # of what goes into an adapter; not with gates, where peft has none
    targets: tuple[str, ...] = ("all",)
    gates: bool = False

    rows: int = 4
    length: int = 512
    pack: bool = True  # several examples a row, each begun with a start; else one
    split: str = "cut"  # longer rows of the file: "cut" after `length`, or "split" into pieces
    bins: int = 0  # half-filled rows at a time; 0: a quarter of an epoch's, 64 at most

    schedule: str = "cosine"
    peak_rate: float = 0.0  # 0: 2e-4 for LoRA, 2e-5 for all weights
    last_rate: float = 0.0
    warmup_steps: int = 10
    beta2: float = 0.999
    weight_decay: float = 0.0
    compile: bool = False  # minutes before the first step, which few runs earn back
    save_every: float = 300.0
    log_every: int = 10
    rate_seconds: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model != TrainConfig.model or self.feed is not None:
            raise ConfigError("model and feed are not settings here: MODEL and --data name them")
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"rank must be 1 or more and dropout in [0, 1), not {self.rank} and {self.dropout}"
            )
        if self.epochs <= 0 or self.bins < 0:
            raise ConfigError(
                f"epochs must be positive and bins 0 or more, not {self.epochs} and {self.bins}"
            )
        if not self.targets and not self.gates:
            raise ConfigError(
                "targets names nothing to adapt; say targets=all, or names such as q,v"
            )
        if self.gates and self.dropout:
            raise ConfigError(
                "peft adapts the gates' matrices themselves, where dropout of inputs has no place; "
                "set dropout=0 or gates=false"
            )
