"""Requests, and what each of them gets where nobody else is served: computed in this process."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...inference import GenerateOptions, LanguageModel, ask, load, read_text
from ...models import State

DTYPE = "float32"
QUESTION = "Who was there?"
OPTIONS = ("--dtype", DTYPE)
"""What a server is started with, so that its answers can be compared."""

_PROMPTS = ("The wind", "She said", "Once upon a time", "a", "It was late and", "Where is the key?")
_PIECES = (
    "The wind rose over the old house. ",
    "Nobody was there to hear it, but the door stood open all night long. ",
    "In the morning a letter lay on the stairs. ",
    "It was addressed to a name that nobody knew; so it was put on the shelf. ",
)
_READ: list[tuple["Read", State | None]] = []  # after 0, 1, ... pieces, as far as was asked for


@dataclass(frozen=True)
class Alone:
    """A completion's body, and its text."""

    body: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class Read:
    """A session after some pieces: its tokens, and its answer to QUESTION."""

    tokens: int
    answer: str


@cache
def model() -> LanguageModel:
    """The bundled model as the servers have it."""
    return load("fledgling", device="cpu", dtype=DTYPE)


@cache
def completions(tokens: int, logprobs: int | None = None) -> tuple[Alone, ...]:
    """Greedy and drawn ones, of so many tokens at most."""
    found: list[Alone] = []
    for seed, prompt in enumerate(_PROMPTS * 2):
        heat = 0.8 if seed % 3 else 0.0
        out = model().generate(prompt, max_new_tokens=tokens, temperature=heat, seed=seed)
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": heat, "seed": seed}
        found.append(Alone(body | {"logprobs": logprobs}, out.text))
    return tuple(found)


def piece(number: int) -> dict[str, Any]:
    """The body of a session's append."""
    return {"text": _PIECES[number % len(_PIECES)], "raw": True}


def session(pieces: int) -> Read:
    """A session after so many pieces, each of them an append."""
    while len(_READ) <= pieces:
        state = _READ[-1][1] if _READ else None
        if _READ:
            text = io.BytesIO(piece(len(_READ) - 1)["text"].encode())
            state = read_text(model(), text, state=state, raw=True).state
        here = model().model.empty_state(1) if state is None else state
        stream = ask(model(), QUESTION, here, GenerateOptions(max_new_tokens=4), in_turn=False)
        _READ.append((Read(int(here.tokens), "".join(stream)), state))
    return _READ[pieces][0]


def question() -> dict[str, Any]:
    """The body of a question to a session."""
    return {"input": QUESTION, "temperature": 0, "max_tokens": 4}
