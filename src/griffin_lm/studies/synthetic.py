"""Tasks of recall: selective copying, induction heads, multi-query associative recall.

Each draws rows (B, T) of tokens, targets, and weights that are 1 where an answer is due, 0 else.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ..training.batch import Batch
from .fit import batch_of

NOISE, ASK, FIRST = 0, 1, 2  # of selective copying: noise, the marker, the first data token
SPECIAL = 0  # of induction heads
POWER = 0.01  # of MQAR's distances (Zoology)


class Task(NamedTuple):
    """Which task, with its sizes. asked: data tokens or pairs; length: of the row, in tokens."""

    name: str
    vocab: int
    length: int
    asked: int = 0


def selective_copying(random: np.random.Generator, rows: int, task: Task) -> Batch:
    """`asked` data tokens among noise, then as many markers: the data are due in their order.

    Gu and Dao 2023, section 4.1.1 and appendix E.1; Griffin, section 6.2 and appendix H.
    """
    noisy = task.length - task.asked
    tokens = np.full((rows, task.length), NOISE)
    data = random.integers(FIRST, task.vocab, (rows, task.asked))
    places = np.sort(np.argsort(random.random((rows, noisy)), axis=1)[:, : task.asked], axis=1)
    np.put_along_axis(tokens, places, data, axis=1)
    tokens[:, noisy:] = ASK
    targets, weight = np.zeros_like(tokens), np.zeros(tokens.shape)
    targets[:, noisy:], weight[:, noisy:] = data, 1
    return batch_of(tokens, targets, weight)


def induction_heads(random: np.random.Generator, rows: int, task: Task) -> Batch:
    """A special token somewhere and again at the end: what followed it is due.

    Gu and Dao 2023, section 4.1.2 and table 11; Griffin, section 6.2.
    """
    tokens = random.integers(SPECIAL + 1, task.vocab, (rows, task.length))
    place = random.integers(0, task.length - 2, rows)
    every = np.arange(rows)
    tokens[every, place], tokens[:, -1] = SPECIAL, SPECIAL
    targets, weight = np.zeros_like(tokens), np.zeros(tokens.shape)
    targets[:, -1], weight[:, -1] = tokens[every, place + 1], 1
    return batch_of(tokens, targets, weight)


def associative_recall(random: np.random.Generator, rows: int, task: Task) -> Batch:
    """`asked` pairs of key and value, then each key once among blanks: its value is due.

    MQAR (Arora et al. 2023, Zoology): keys are from the lower half of the vocabulary, values from
    the upper; a key comes again after a distance drawn by a power law.
    """
    pairs, half = task.asked, task.vocab // 2
    head = 2 * pairs
    space = (task.length - head) // 2
    keys = 1 + np.argsort(random.random((rows, half - 1)), axis=1)[:, :pairs]
    values = half + np.argsort(random.random((rows, task.vocab - half)), axis=1)[:, :pairs]
    chance = np.log(np.arange(1, space + 1)) * (POWER - 1)
    drawn = chance + random.gumbel(size=(rows, space))  # places without repeats, by the power law
    gaps = np.argsort(-drawn, axis=1)[:, :pairs]
    order = np.argsort(random.random((rows, pairs)), axis=1)
    gaps = np.take_along_axis(gaps, order, axis=1)
    tokens = np.zeros((rows, task.length), dtype=np.int64)
    tokens[:, 0:head:2], tokens[:, 1:head:2] = keys, values
    targets, weight = np.zeros_like(tokens), np.zeros(tokens.shape)
    places = head + 2 * gaps
    np.put_along_axis(tokens, places, keys, axis=1)
    np.put_along_axis(targets, places, values, axis=1)
    np.put_along_axis(weight, places, 1, axis=1)
    return batch_of(tokens, targets, weight)


TASKS: Mapping[str, Callable[[np.random.Generator, int, Task], Batch]] = {
    "copying": selective_copying,
    "induction": induction_heads,
    "mqar": associative_recall,
}
