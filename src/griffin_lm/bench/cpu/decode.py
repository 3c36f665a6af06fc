"""Decoding: one token after another, batch 1 and larger, at the start of a text and far into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ...shapes import JSON
from . import rounds
from .contenders import Field, Measured, Options, Started, remembered
from .rounds import Case, Say


@dataclass(frozen=True)
class Decode:
    """batches: of ours; peers are measured at batch 1. contexts: tokens read before.

    tokens: how many a measurement takes.
    """

    batches: Sequence[int] = (1, 8)
    contexts: Sequence[int] = (0, 32_768)
    tokens: int = 8


def measure(options: Options, decode: Decode, profile: bool, say: Say) -> Measured:
    """One kind of weights after another; profile: also where our own time goes."""
    measured, profiles = list[JSON](), list[JSON]()
    for weights in options.weights:
        with Field(options, weights, say) as field:
            cases = [
                _case(started, batch, context, decode.tokens)
                for context in decode.contexts
                for batch in decode.batches
                for started in field.contenders
                if _measured_at(started.facts["who"], batch, context)
            ]
            for case in cases:  # contexts are filled and pages touched before the rounds
                case.run()
            found = rounds.measure(
                cases, field.read_bandwidth, options.rounds, say, options.patience
            )
            remembered(found, field.contenders)
            measured += found
            if profile:
                profiles += [
                    _profile(one, weights, max(decode.contexts))
                    for one in field.contenders
                    if one.facts["who"] == "griffin"
                ]
    return Measured(measured, profiles, options.cores)


def _measured_at(who: str, batch: int, context: int) -> bool:
    """transformers would have to read its context, for hours; its state is of fixed size too."""
    if who == "transformers":
        return batch == 1 and context == 0
    return who == "griffin" or batch == 1


def _case(started: Started, batch: int, context: int, tokens: int) -> Case:
    moved = started.child.ask("bytes_per_step", batch, context)
    facts = {"what": "decode", **started.facts, "batch": batch, "context": context}
    run = partial(started.child.ask, "decode", batch, context, tokens)
    return Case(facts, run, units=batch * tokens, work=float(moved * tokens))


def _profile(ours: Started, weights: str, context: int) -> JSON:
    """Where our own time goes in a step, by part."""
    parts = ours.child.ask("profile_decode", 1, context, 4)
    return {"what": "decode", "weights": weights, "batch": 1, "context": context, "seconds": parts}
