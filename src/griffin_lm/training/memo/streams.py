"""Continuous streams of memo documents, one per batch row, that go on after a restart."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .curriculum import Curriculum
from .documents import Document, MemoTokens, memo_document


class Cut(NamedTuple):
    """The next tokens of every row, each (B, T): inputs, starts, targets and what they are.

    kind, field, gap: of each target token, as in `documents.Document`.
    """

    inputs: Tensor
    starts: Tensor
    targets: Tensor
    kind: Tensor
    field: Tensor
    gap: Tensor


class Streams:
    """B rows of documents without end; `take` cuts the next T tokens of each."""

    def __init__(
        self, rows: int, prose: np.ndarray, memo: MemoTokens, course: Curriculum, seed: int
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.next_document: Callable[[], Document] = lambda: memo_document(
            prose, memo, course, self.random
        )
        self.rows: list[np.ndarray] = [np.zeros((5, 0), dtype=np.int32) for _ in range(rows)]

    def take(self, length: int) -> Cut:
        """The next `length` tokens of every row; the target of the last one is looked up ahead."""
        taken: list[np.ndarray] = []
        for row, waiting in enumerate(self.rows):
            parts, have = [waiting], waiting.shape[1]
            while have < length + 1:
                document = self.next_document()
                starts = np.zeros(len(document.tokens), dtype=np.int32)
                starts[0] = 1
                parts.append(
                    np.stack(
                        [document.tokens, starts, document.kind, document.field, document.gap]
                    ).astype(np.int32)
                )
                have += len(document.tokens)
            whole = np.concatenate(parts, axis=1) if len(parts) > 1 else waiting
            taken.append(whole[:, : length + 1])
            self.rows[row] = whole[:, length:]
        stack = torch.from_numpy(np.stack(taken, axis=1)).long()  # (5, B, T + 1)
        return Cut(
            inputs=stack[0, :, :-1].contiguous(),
            starts=stack[1, :, :-1].bool(),
            targets=stack[0, :, 1:].contiguous(),
            kind=stack[2, :, 1:],
            field=stack[3, :, 1:],
            gap=stack[4, :, 1:],
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything: the random numbers' state and what waits in each row."""
        rows = [torch.from_numpy(row.copy()) for row in self.rows]
        return {"random": self.random.bit_generator.state, "rows": rows}

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of to_dict."""
        self.random.bit_generator.state = saved["random"]
        self.rows = [row.numpy() for row in saved["rows"]]
