"""The model's turn as it is generated: pieces of text, which may be cut short anywhere."""

import time
from collections.abc import Iterator, Sequence

from ..models import State
from .generate import Generation
from .row import FinishReason


class Reply(Iterator[str]):
    """Pieces of the model's turn. Stopping early is fine, by an exception too: what came stays.

    text        what came so far
    tokens      how many ids were generated so far
    seconds     how long the model took for them
    """

    def __init__(self, generation: Generation, opening: Sequence[int]) -> None:
        self.text = ""
        self.seconds = 0.0
        self._generation = generation
        self._opening = list(opening)
        self._broken = False  # interrupted in the middle of a step: its state is lost

    def __next__(self) -> str:
        while not self.done:
            begun = time.perf_counter()
            try:
                piece = self._generation.step()[0]
            except BaseException:
                self._broken = True
                raise
            self.seconds += time.perf_counter() - begun
            if self.finish_reason in ("length", "cancelled"):
                piece = piece.rstrip("\ufffd")  # a character of which the last bytes never came
            self.text += piece
            if piece:
                return piece
        raise StopIteration

    @property
    def done(self) -> bool:
        """Whether no more will come."""
        return self._broken or self._generation.done

    @property
    def tokens(self) -> int:
        """How many ids were generated so far."""
        return len(self._generation.rows[0].tokens)

    @property
    def finish_reason(self) -> FinishReason | None:
        """As of `Output`; None while more may come."""
        if self._broken:
            return "cancelled"
        return self._generation.outputs[0].finish_reason if self._generation.done else None

    def cancel(self) -> str:
        """Ends it where it is; returns the text that was held back."""
        piece = "" if self.done else self._generation.cancel()[0].rstrip("\ufffd")
        self.text += piece
        return piece

    def read_so_far(self) -> tuple[list[int], State] | None:
        """(ids that went through the model since the question, the state after them).

        None where that state is lost. The last id that was chosen is not among them.
        """
        self.cancel()
        if self._broken:
            return None
        out = self._generation.outputs[0]
        state = out.state[:]
        state.pending = None
        return [*self._opening, *out.tokens][:-1], state
