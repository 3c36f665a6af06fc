"""What is verified: the model as loaded, its texts, and how exactly its arithmetic can agree."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...inference import LanguageModel
from ...inference.loading import BUNDLED
from ...models import Griffin, ModelConfig

BEGIN, END = "When Natasha ran out of the drawing room", "It opened and Nicholas came in."
AFFORDABLE = 64  # tokens: a window up to this is crossed by reading; a longer one is shortened
SHORT = 16  # to this
BEYOND = 32  # tokens that are read past the window
ROUNDINGS = 5.0  # see Subject.limit
LARGEST = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # of the largest logit


@dataclass
class Subject:
    """A loaded model under test.

    where: its checkpoint. random: its weights are, so it knows no language. long: also cross a long
    window by reading. coarse: what `definition.mixed` says, in logits, once it was found.
    """

    name: str
    where: Path
    format: str
    lm: LanguageModel
    random: bool = False
    long: bool = False
    coarse: float = 0.0

    @property
    def model(self) -> Griffin:
        """The model as loaded."""
        return self.lm.model

    @cached_property
    def passage(self) -> str:
        """1.2 kB of War and Peace (public domain), which no model here was trained on."""
        book = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")
        return book[book.index(BEGIN) : book.index(END) + len(END)]

    @cached_property
    def shuffled(self) -> str:
        """The passage's words in another order: the same bytes, hardly any language."""
        words = self.passage.split(" ")
        random.Random(0).shuffle(words)
        return " ".join(words)

    @cached_property
    def window(self) -> int:
        """The longest attention window of the model; 0 without any."""
        return max([getattr(mixer, "window", 0) for mixer in self.model.config.pattern])

    @cached_property
    def twin(self) -> Griffin:
        """The model with windows of at most `AFFORDABLE`: the same weights in the same memory."""
        config = self.model.config
        pattern = tuple(
            replace(mixer, **{"window": SHORT})
            if getattr(mixer, "window", 0) > AFFORDABLE
            else mixer
            for mixer in config.pattern
        )
        return sharing(self.model, replace(config, pattern=pattern))

    @cached_property
    def reach(self) -> int:
        """The window that the twin has (its longest, `SHORT` without any)."""
        windows = [getattr(mixer, "window", 0) for mixer in self.twin.config.pattern]
        return max(windows) or SHORT

    @cached_property
    def tokens(self) -> list[int]:
        """The passage's first ids, BOS among them: `reach` and `BEYOND` more."""
        return self._ids(self.passage)

    @cached_property
    def others(self) -> list[int]:
        """As many ids of another text."""
        return self._ids(self.shuffled)

    @cached_property
    def long_tokens(self) -> list[int]:
        """The book's first ids, enough to pass the model's own window."""
        book = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")
        ids = self.lm.encode(book[: 8 * (self.window + 2 * BEYOND)])
        return ids[: self.window + BEYOND]

    @cached_property
    def whole(self) -> Tensor:
        """(T, V) fp32: the twin's logits of `tokens`, read in one call."""
        return self.logits(self.tokens)

    @cached_property
    def noise(self) -> float:
        """What one more rounding of every block's output changes in the logits, at most.

        Each element is moved by about half a unit in its last place, up or down at random.
        """
        signs = torch.Generator().manual_seed(0)
        half = torch.finfo(self.model.embed.weight.dtype).eps / 2

        def round_again(_: object, __: object, out: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
            sign = torch.randint(2, out[0].shape, generator=signs).double() * 2 - 1
            moved = out[0].cpu().double() * (1 + half * sign)
            return moved.to(out[0].device, out[0].dtype), out[1]

        hooks = [block.register_forward_hook(round_again) for block in self.twin.blocks]
        try:
            moved = self.logits(self.tokens)
        finally:
            for hook in hooks:
                hook.remove()
        return difference(moved, self.whole)

    @cached_property
    def limit(self) -> float:
        """How far two ways of computing the same logits may differ.

        Two orders of summation differ by what rounding does. One more rounding a block does
        `noise`, measured on these weights; a block rounds some ten times, either way of computing
        does, and independent errors add as their squares: sqrt(2 x 10) is about 5. No more than a
        fixed share of the largest logit, so that a model on which noise grows has no larger limit.
        """
        largest = self.whole.abs().max().item()
        return min(ROUNDINGS * self.noise, LARGEST[self.model.embed.weight.dtype] * largest)

    def free(self) -> None:
        """Lets go of the model; what was computed stays."""
        self.__dict__.pop("twin", None)
        del self.lm

    def logits(self, ids: Sequence[int]) -> Tensor:
        """(T, V) fp32 of one row, read by the twin in one call from nothing."""
        logits, _ = self.twin(self.row(ids))
        assert logits is not None
        return logits[0].float()

    def row(self, ids: Sequence[int]) -> Tensor:
        """(1, T) on the model's device."""
        return torch.tensor([list(ids)], device=self.model.embed.weight.device)

    def _ids(self, text: str) -> list[int]:
        count = self.reach + BEYOND
        ids = self.lm.encode(text)
        while len(ids) < count:
            ids = ids + ids
        return ids[:count]


def sharing(model: Griffin, config: ModelConfig) -> Griffin:
    """A model of another config whose parameters are the given model's own, in the same memory."""
    twin = Griffin(config, device="meta")
    twin.load_state_dict(dict(model.named_parameters()), strict=True, assign=True)
    twin.kernels = model.kernels
    return twin.eval()


def difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; NaN if there is any."""
    return (a.double() - b.double()).abs().max().item() if a.numel() else 0.0
