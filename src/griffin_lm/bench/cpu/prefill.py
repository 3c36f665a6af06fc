"""Prefill: prompts of some lengths, read up to the logits of their last token."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ...shapes import JSON
from . import rounds
from .contenders import Field, Measured, Options, Started, remembered
from .rounds import Case, Say


@dataclass(frozen=True)
class Prefill:
    """lengths: of the prompts, in tokens."""

    lengths: Sequence[int] = (512, 2048)


def measure(options: Options, prefill: Prefill, profile: bool, say: Say) -> Measured:
    """One kind of weights after another, the RG-LRU alone beside each of ours.

    profile: also where our own time goes in the shortest prompt.
    """
    measured, profiles = list[JSON](), list[JSON]()
    for weights in options.weights:
        with Field(options, weights, say) as field:
            cases = [
                case
                for length in prefill.lengths
                for started in field.contenders
                for case in _cases(started, length)
            ]
            found = rounds.measure(cases, field.matrix_rate, options.rounds, say, options.patience)
            remembered(found, field.contenders)
            measured += found
            if profile:
                profiles += [
                    _profile(one, weights, min(prefill.lengths))
                    for one in field.contenders
                    if one.facts["who"] == "griffin"
                ]
    return Measured(measured, profiles, options.cores)


def _cases(started: Started, length: int) -> list[Case]:
    """The prompt, and of ours the recurrences in it. The work is that of matrices but the head."""
    place = {**started.facts, "batch": 1, "context": length}
    work = float(started.facts["flops_per_token"] * length)
    ask = started.child.ask
    cases = [Case({"what": "prefill", **place}, partial(ask, "prefill", length), length, work)]
    if started.facts["who"] == "griffin":
        run = partial(ask, "recurrence", length)
        cases.append(Case({"what": "rg_lru in a prefill", **place}, run, length, work))
    return cases


def _profile(ours: Started, weights: str, length: int) -> JSON:
    """Where our own time goes in a prompt, by part."""
    parts = ours.child.ask("profile_prefill", length)
    return {"what": "prefill", "weights": weights, "batch": 1, "context": length, "seconds": parts}
