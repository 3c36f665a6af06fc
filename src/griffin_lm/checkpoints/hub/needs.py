"""Before a download: what it takes on the disk and, once loaded, in memory, and what is at hand."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import HubError
from ...models import ModelConfig
from ...models.sizes import QUANTISED, memory, quantised_bytes
from .machine import disk_at_hand, memory_at_hand

ANYWAY = "GRIFFIN_SKIP_MEMORY_CHECK"  # set to 1: download what this machine cannot hold


@dataclass(frozen=True)
class Need:
    """How a model is to be loaded: the dtype of its weights, where, and rounded to what."""

    dtype: torch.dtype
    device: torch.device
    quantize: str | None = None


@dataclass(frozen=True)
class Preflight:
    """A download before it begins; all figures in bytes.

    name, commit, chosen  what is fetched: the hub id, its commit, and which of its files
    total, here, fetch    of these files: in all, in the cache already, still to come
    cache, disk           where they go, and what is free there
    dtype, device         how the model will be loaded; None where it will not be (convert, inspect)
    weights, state, peak  of the loaded model: weights, one sequence's state, the most it takes
    quantised             {"int8": .., "int4": ..}: its weights if they are quantised
    memory, memory_total  of the device: free now, and in all
    """

    name: str
    commit: str
    chosen: str
    total: int
    here: int
    fetch: int
    cache: Path
    disk: int
    dtype: str | None = None
    device: str | None = None
    weights: int = 0
    state: int = 0
    peak: int = 0
    quantised: dict[str, int] | None = None
    memory: int = 0
    memory_total: int = 0

    @property
    def fits_disk(self) -> bool:
        """Whether what is still to come finds room."""
        return self.fetch <= self.disk

    @property
    def fits_memory(self) -> bool:
        """Whether the model finds memory as it is free now; True where it will not be loaded."""
        return self.dtype is None or self.peak <= self.memory

    @property
    def can_ever_fit(self) -> bool:
        """Whether the device could hold the weights with nothing else in it."""
        return self.dtype is None or self.weights <= self.memory_total

    def lines(self) -> list[str]:
        """The figures for people."""
        already = f", {size(self.here)} of {size(self.total)} here" if self.here else ""
        lines = [
            f"{self.name} at {self.commit[:8]}: {self.chosen}",
            f"to fetch {size(self.fetch)}{already}; free disk {size(self.disk)} at {self.cache}",
        ]
        if self.dtype is not None:
            state = f" (weights {size(self.weights)}, state {size(self.state)} a sequence)"
            lines.append(
                f"memory needed {size(self.peak)} as {self.dtype}{state if self.state else ''}; "
                f"free {size(self.memory)} of {size(self.memory_total)} on {self.device}"
            )
        if not self.fits_memory:
            lines.append(self.smaller())
        return lines

    def smaller(self) -> str:
        """What would fit instead."""
        found: list[str] = []
        if self.dtype == "float32" and self.weights / 2 <= self.memory:
            found.append(f"--dtype bfloat16 fits: {size(self.weights // 2)} of weights")
        kinds = [
            f"{kind} ({size(bytes_)})"
            for kind, bytes_ in (self.quantised or {}).items()
            if bytes_ + self.state <= self.memory
        ]
        if kinds:
            found.append(f"--quantize fits with {' or '.join(kinds)}")
        return "; ".join(found) or "not even 4-bit weights would fit here: take a smaller model"

    def check(self) -> None:
        """Raises HubError where the disk is too small, or the memory even when empty.

        Too little memory free just now is no error: it may be free once the download ends. The
        refusal for memory can be overruled by GRIFFIN_SKIP_MEMORY_CHECK=1.
        """
        if not self.fits_disk:
            raise HubError(
                f"{self.name} needs {size(self.fetch)} more at {self.cache}, where "
                f"{size(self.disk)} are free; nothing was fetched: make room (`hf cache ls` shows "
                "what lies there) or put the cache on another disk with HF_HOME"
            )
        if not self.can_ever_fit and os.environ.get(ANYWAY, "") in ("", "0"):
            raise HubError(
                f"{self.name} has {size(self.weights)} of weights as {self.dtype}, and "
                f"{self.device} has {size(self.memory_total)} in all; no weights were fetched. "
                f"{self.smaller()}; {ANYWAY}=1 fetches it anyway"
            )

    def warning(self) -> str | None:
        """What to say where it may fail although it is not refused."""
        if self.fits_memory:
            return None
        return (
            f"{self.name} needs {size(self.peak)} of memory as {self.dtype}, and "
            f"{size(self.memory)} are free on {self.device}: close other programs before it is "
            f"loaded. {self.smaller()}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"cache": str(self.cache)}


def plan(
    name: str,
    commit: str,
    chosen: str,
    total: int,
    here: int,
    cache: Path,
    config: ModelConfig | None,
    stored: int,
    need: Need | None,
) -> Preflight:
    """Measures the machine and adds up. config: None where only the weights' bytes are known.

    stored: bytes of the weights' files, taken for 16-bit ones where there is no config.
    """
    figures: dict[str, Any] = {}
    if need is not None:
        at_hand = memory_at_hand(need.device)
        figures |= {
            "dtype": str(need.dtype).removeprefix("torch."),
            "device": str(need.device),
            "memory": at_hand.free,
            "memory_total": at_hand.total,
        }
        if config is None:
            weights = stored * need.dtype.itemsize // 2
            figures |= {"weights": weights, "peak": weights}
        else:
            needs = memory(config, need.dtype)
            quantised = {kind: quantised_bytes(config, kind) for kind in QUANTISED}
            saved = needs.weights - quantised.get(need.quantize or "", needs.weights)
            figures |= {
                "weights": needs.weights - saved,
                "state": needs.state_per_sequence,
                "peak": needs.peak - saved,
                "quantised": quantised,
            }
            if need.quantize is not None:
                figures["dtype"] = need.quantize
    return Preflight(
        name, commit, chosen, total, here, total - here, cache, disk_at_hand(cache), **figures
    )


def size(count: int) -> str:
    """Bytes as people read them, powers of ten."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.2f} {unit}"
    return f"{count} B"
