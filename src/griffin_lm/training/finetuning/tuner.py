"""The trainer of a fine-tuning run: what its checkpoints hold, and what it checks at first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import TrainingError
from ...shapes import JSON
from ..batch import Batch, Feed, World
from ..distributed import whole
from ..resume import refuse_other_config
from ..trainer import Trainer
from .config import FinetuneConfig


class Finetuner(Trainer):
    """A Trainer that saves only what it trains, beside the fingerprint of what it does not.

    base: of the weights that the model was loaded with; kind: what the adapter is, which a resumed
    run must share. check: called once after the first backward pass that had answers.
    """

    def __init__(
        self,
        model: nn.Module,
        feed: Feed,
        config: FinetuneConfig,
        out: Path,
        base: str,
        kind: JSON,
        check: Callable[[nn.Module], None] | None = None,
        world: World = World(),  # noqa: B008  (immutable)
    ) -> None:
        super().__init__(model.train(), feed, config, out, world)
        self.base, self.kind, self._check = base, kind, check

    def _backward(self, batch: Batch, state: Any, over: float) -> Any:
        found = super()._backward(batch, state, over)
        if self._check is not None and any(self.processes.totals(float(batch.weight.sum()))):
            check, self._check = self._check, None
            check(self.model)
        return found

    def learned(self) -> dict[str, Tensor]:
        """What is trained, by name and whole; every process takes part."""
        named = self.model.named_parameters()
        return {name: whole(p.detach()) for name, p in named if p.requires_grad}

    def to_dict(self) -> dict[str, Any]:
        """As Trainer's, without frozen weights."""
        whole = super().to_dict()
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        model: dict[str, Tensor] = whole["model"]
        kept = {name: tensor for name, tensor in model.items() if name in trained}
        return whole | {"model": kept, "base": self.base, "kind": self.kind}

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse. Raises TrainingError for a run on other weights, or of another adapter."""
        refuse_other_config(saved["config"], self.model.config.to_dict(), self.out)
        if "base" not in saved:
            raise TrainingError(
                f"{self.out} holds a run of `griffin pretrain`; choose another --out"
            )
        if saved["base"] != self.base:
            raise TrainingError(
                f"the run in {self.out} fine-tunes weights with the fingerprint "
                f"{saved['base'][:12]}, and this MODEL's is {self.base[:12]}; give the MODEL "
                "it was begun with, or another --out"
            )
        if differences := [
            f"{name}: {saved['kind'].get(name)} there, {self.kind.get(name)} here"
            for name in {**saved["kind"], **self.kind}
            if saved["kind"].get(name) != self.kind.get(name)
        ]:
            raise TrainingError(
                f"the run in {self.out} was begun with other settings ({'; '.join(differences)}); "
                "resume with the same, or choose another --out"
            )
        super().restore(saved | {"model": self.model.state_dict() | saved["model"]})
