"""Recall: what a state of fixed size holds, and how far (Griffin, 6.2; Mamba, 4.1; Zoology)."""

from collections.abc import Mapping, Sequence

from ..shapes import JSON
from . import memo
from .architectures import LABELS
from .page import joined, median, verdict
from .recall_runs import SCALES, Settings, Trial, measure, plan, settings_of
from .study import Done, Line, Panel, Study, Table
from .sweep import at_best, is_swept, rate_said


def _seeds(settings: Settings, done: Done, trial: str, name: str) -> Sequence[JSON]:
    wanted = settings_of(settings, trial, name)
    return [figures for _, figures in at_best(done, settings.sweep_of(trial), wanted)]


def tables(settings: Settings, done: Done) -> list[Table]:
    """Accuracy and steps of each task; accuracy by length."""
    made: list[Table] = []
    for trial, chosen in settings.trials.items():
        rows: list[list[str]] = []
        for name in settings.of(trial):
            runs = _seeds(settings, done, trial, name)
            if not runs:
                continue
            steps = [str(run["solved_at"] or f"> {run['steps']}") for run in runs]
            rows.append(
                [
                    LABELS[name],
                    joined([run["accuracy"] for run in runs]),
                    ", ".join(steps),
                    rate_said(done, settings.sweep_of(trial), settings_of(settings, trial, name)),
                    str(len(runs)),
                    f"{runs[0]['parameters']:,}",
                    f"{runs[0]['state_bytes']:,}" if name not in ("mqa", "mha") else "grows",
                ]
            )
        head = ["", "accuracy", "steps to 0.995, by seed", "rate", "seeds", "parameters", "state"]
        made.append(Table(f"{_called(trial, chosen)}: {_words(chosen)}", head, rows))
        if chosen.lengths:
            made.append(_by_length(settings, done, trial))
    return made if settings.memo is None else made + memo.tables(settings.memo, done)


def _called(name: str, trial: Trial) -> str:
    return f"{name} ({trial.aside})" if trial.aside else name


def _words(trial: Trial) -> str:
    task = trial.task
    sizes = f"{task.length} tokens, vocabulary {task.vocab}, window {trial.window}"
    return f"{task.asked} of {sizes}" if task.asked else sizes


def _by_length(settings: Settings, done: Done, trial: str) -> Table:
    lengths = settings.trials[trial].lengths
    rows: list[list[str]] = []
    for name in settings.of(trial):
        if runs := _seeds(settings, done, trial, name):
            found = [
                [run["by_length"][str(n)] for run in runs if str(n) in run["by_length"]]
                for n in lengths
            ]
            rows.append([LABELS[name], *(joined(some, ".2f") for some in found)])
    return Table(f"{trial}: accuracy by length", ["", *(f"{n:,}" for n in lengths)], rows)


def panels(settings: Settings, done: Done) -> list[Panel]:
    """Accuracy by step of each task, and by length."""
    made: list[Panel] = []
    for trial, chosen in settings.trials.items():
        learning: list[Line] = []
        reaching: list[Line] = []
        for name in settings.of(trial):
            runs = _seeds(settings, done, trial, name)
            if runs:
                steps, found = zip(*runs[0]["by_step"], strict=True)
                learning.append(Line(name, steps, found))
                lengths = [int(n) for n in runs[0]["by_length"]]
                every = [[run["by_length"].get(str(n), 0.0) for run in runs] for n in lengths]
                middle = [median(some) for some in every]
                spread = [(min(some), max(some)) for some in every]
                reaching.append(Line(name, lengths, middle, spread))
        made.append(Panel(f"{_called(trial, chosen)}, one seed", "steps", "accuracy", learning, ""))
        if chosen.lengths:
            made.append(Panel(f"{trial}, by length", "tokens", "accuracy", reaching))
    return made if settings.memo is None else made + memo.panels(settings.memo, done)


def verdicts(settings: Settings, done: Done) -> list[str]:
    """All four, as far as the sweeps that decide them are finished."""
    every: dict[str, dict[str, Sequence[JSON]]] = {}
    for trial in settings.trials:
        sweep, found = settings.sweep_of(trial), every.setdefault(trial, {})
        for name in settings.of(trial):
            runs = _seeds(settings, done, trial, name)
            if runs and is_swept(done, sweep, settings_of(settings, trial, name)):
                found[name] = runs
    said = [
        *_of_copying(every.get("copying", {})),
        *_of_induction(every.get("induction", {})),
        *(
            line
            for trial, runs in every.items()
            if "mqar" in trial
            for line in _of_mqar(_called(trial, settings.trials[trial]), runs)
        ),
    ]
    return said if settings.memo is None else said + memo.verdicts(settings.memo, done)


Runs = Mapping[str, Sequence[JSON]]
Steps = Sequence[int | None]  # to 0.995, by seed; None: not reached


def _reached(runs: Runs) -> tuple[dict[str, float], str]:
    found = {name: median([run["accuracy"] for run in some]) for name, some in runs.items()}
    return found, ", ".join(f"{LABELS[name]} {share:.2f}" for name, share in found.items())


def _of_copying(runs: Runs) -> list[str]:
    found, _ = _reached(runs)
    said: list[str] = []
    if all(name in found for name in ("griffin", "hawk", "mqa")):
        few = {name: runs[name] for name in ("griffin", "hawk", "mqa")}
        held = min(_reached(few)[0].values()) > 0.99
        said.append(verdict("1, copying: Griffin, Hawk, MQA above 0.99", held, _reached(few)[1]))
        steps = {n: [run["solved_at"] for run in runs[n]] for n in ("griffin", "hawk")}
        if None in [*steps["griffin"], *steps["hawk"]]:
            each = ", ".join(f"{LABELS[n]} {found[n]:.2f}" for n in steps)
            claim = "1, copying: Hawk needs more steps than Griffin"
            said.append(verdict(claim, None, f"not both solved it on all seeds: {each}"))
        else:
            slow, fast = (median([float(s) for s in steps[n]]) for n in ("hawk", "griffin"))
            claim = "1, copying: Hawk needs more steps than Griffin"
            said.append(verdict(claim, slow > fast, f"{slow:.0f} and {fast:.0f}"))
    if "lru" in found:
        claim = "1, copying: LRU stays below 0.9"
        said.append(verdict(claim, found["lru"] < 0.9, f"{found['lru']:.2f}"))
    return said


def _of_induction(runs: Runs) -> list[str]:
    if len(runs) < 2 or "64" not in next(iter(runs.values()))[0]["by_length"]:
        return []
    few = {name: some for name, some in runs.items() if name != "local"}
    found, each = _reached(few)
    claim = "2, induction: all but local attention above 0.99 at the length trained on"
    whole = all(name in found for name in ("griffin", "hawk", "lru", "gru", "mqa"))
    held = False if min(found.values()) <= 0.99 else True if whole else None
    said = [verdict(claim, held, each)]

    def at(name: str, length: int) -> float:
        return median([run["by_length"][str(length)] for run in runs[name]])

    for name in ("griffin", "hawk"):
        if name in runs:
            near, far = at(name, 256), at(name, 1024)
            held = True if far > 0.9 else False if near <= 0.9 else None
            claim = f"2, induction: {LABELS[name]} above 0.9 at 8 times that length"
            said.append(verdict(claim, held, f"at 4 and 16 times: {near:.2f}, {far:.2f}"))
    if "mqa" in runs:
        claim = "2, induction: MQA below 0.9 by 4 times that length"
        said.append(verdict(claim, at("mqa", 256) < 0.9, f"{at('mqa', 256):.2f}"))
    return said


def _of_mqar(trial: str, runs: Runs) -> list[str]:
    found, each = _reached(runs)
    if not all(name in found for name in ("griffin", "hawk", "mqa")):
        return []
    solve = _apart(*([run["solved_at"] for run in runs[n]] for n in ("griffin", "mqa", "hawk")))
    apart = found["griffin"] - found["hawk"]
    said = [
        verdict(f"3, {trial}: MQA and Griffin solve what Hawk does not", solve, each),
        verdict(f"3, {trial}: Hawk below Griffin by 0.2", apart >= 0.2, f"{apart:.2f}"),
    ]
    if "lru" in found:
        figures = f"{found['lru']:.2f} and {found['hawk']:.2f}"
        held = found["lru"] <= found["hawk"]
        said.append(verdict(f"3, {trial}: LRU at or below Hawk", held, figures))
    return said


def _apart(griffin: Steps, mqa: Steps, hawk: Steps) -> bool | None:
    """Whether the first two solve a task on all seeds and Hawk on none; None: seeds differ."""
    if None not in hawk or not any(griffin) or not any(mqa):
        return False
    return True if None not in [*griffin, *mqa] and not any(hawk) else None


STUDY = Study(
    title="Recall: what a state holds, and how far",
    question="Which tasks of recall does each architecture learn, how fast, and how far?",
    setup="""\
Selective copying: data tokens among noise, then markers at which they are due in their order.
Induction heads: a special token somewhere and again at the end; what followed it is due. Trained
at one length, asked at others. MQAR: pairs of key and value, then each key again at a distance
drawn by a power law; its value is due. `mqar-4` at scale cpu ended before any model knew which
value belongs to which key; `mqar-8` and `mqar-12` were set after that, by pilots with another seed
([hypotheses](hypotheses.md), last section): their vocabularies are so small that every key occurs
in every row, and only its value is new. Generators follow the papers, sizes are smaller at scale
cpu. Every model has its MLPs (Zoology's have none), so that all have Griffin's parameters. Rows
are new at every step, and asked rows are of a seed of their own. At scale cpu copying and induction
heads are trained with products in bf16, the others in fp32 (`--products`); all are asked in fp32.
Learning curves are of one seed; tables show the median of the seeds, the least and the most.
*Memo*: a note with a name, set into novels; later, the name is asked for, and its first token must
be the likeliest of all. Rows of 256 tokens hold several such documents, the gap between note and
question grows to 128 tokens; asked in novels by other authors. fledgling, the bundled Griffin, was
trained for it at length, has three fields, and is asked in the novels that were kept from it.
*Needle*: five digits in words that no training had; by how many nats they are likelier, asked for
later, than other digits.""",
    beside="""\
- Griffin (2402.19427), 6.2 and appendix H: 5 blocks of width 64, selective copying at 1,024
  tokens and 16 data, induction heads at 256: MQA, Hawk and Griffin all solve both; Hawk is slow
  to learn copying; MQA with rotary positions fails beyond its training length, Hawk is perfect by
  orders of magnitude. Curves, no numbers.
- Mamba (2312.00752), table 11, induction heads trained at 2^8, accuracy at 2^8, 2^9, 2^10, 2^12,
  2^14, 2^16, 2^20: MHA with rotary positions 100, 83.6, 31.3, 8.6, 5.5, out of memory; H3 100,
  80.9, 39.5, 14.8, 5.9, 8.2, 7.4; Mamba 100 at all. Selective copying (4,096 tokens): S4 18.3,
  Mamba 99.8.
- MQAR, Zoology (2312.04927), figure 2: attention solves all at width 64; gated convolutions need
  a width that grows with length. Of Based's mix, read off its plot by eye (± 0.02), accuracy at
  bytes of state: sliding window 0.31 at 3e4, 0.80 at 2.6e5; Mamba 0.69 at 1.6e4. No point of Hawk
  or Griffin was published.""",
    limits="""\
Two or three layers of width 64 and minutes of training: that a model has not learned a task here
does not say that it can't. Where a curve ends unsolved, more steps might solve it; plateaus end
suddenly. With 12 pairs of MQAR that is a matter of the seed: MQA ended at one of the values by
chance on both seeds, in a pilot with a third it was through in 500 steps, so its figure says
nothing of attention, nor LRU's of LRU. What a state can hold was not reached: Hawk learned 8 pairs
whole on both seeds, 12 on one. Lengths, vocabularies and numbers of pairs at scale cpu are below
the papers', so figures are not to be compared with theirs number by number. Memos and `mqar-4` were
not asked of Mamba. Cells at scale cpu are of several processors; all cells of a task have products
of one dtype (see above). Memos are learned in a fiftieth of the tokens that fledgling had, of one
field, without its course, its window dropout or a sweep: what these models do not recall, longer
training might teach. Farther than here fledgling is asked on [its own page](../fledgling.md).""",
    scales=SCALES,
    plan=plan,
    measure=measure,
    tables=tables,
    panels=panels,
    verdicts=verdicts,
)
