"""Loss by position on novels never seen, further than was trained (Griffin, 6.1, app. E and G)."""

from collections.abc import Sequence

from ..shapes import JSON
from .architectures import LABELS
from .books_runs import SCALES, Settings, final_settings, measure, plan, swept_settings
from .page import joined, median, verdict
from .study import Done, Line, Panel, Study, Table, of_kind
from .sweep import rate_said


def _runs(settings: Settings, done: Done, name: str, length: int, window: int) -> Sequence[JSON]:
    return [
        figures for _, figures in of_kind(done, **final_settings(settings, name, length, window))
    ]


def tables(settings: Settings, done: Done) -> list[Table]:
    """By position, by slice, by window."""
    own, near = settings.shape.window, settings.lengths[0]
    places = [2**k for k in range(4, settings.read.bit_length() - 1)]
    by_place: list[list[str]] = []
    slices: list[list[str]] = []
    windows: list[list[str]] = []
    for name in settings.architectures:
        for length in settings.lengths:
            runs = _runs(settings, done, name, length, own)
            if not runs:
                continue
            each = [[r["by_position"].get(str(p)) for r in runs] for p in places]
            figures = [joined([v for v in some if v is not None]) for some in each]
            by_place.append([f"{LABELS[name]}, {length}", *figures])
            slices.append(
                [
                    f"{LABELS[name]}, {length}",
                    *(
                        joined([r[part][key] for r in runs if r[part][key] is not None])
                        for part in ("repeated_near", "repeated")
                        for key in ("seen", "new")
                    ),
                    rate_said(done, settings.sweep, swept_settings(settings, name)),
                    f"{runs[0]['parameters']:,}",
                ]
            )
        if name in ("griffin", "local"):
            row = [_runs(settings, done, name, near, w) for w in (own, *settings.windows)]
            if any(row):
                windows.append(
                    [LABELS[name], *(joined([r["score"] for r in some]) for some in row)]
                )
    head = [
        "",
        f"seen, to {near}",
        f"new, to {near}",
        "seen, all",
        "new, all",
        "rate",
        "parameters",
    ]
    return [
        Table(
            "Nats a token from position 2^k on, by training length",
            ["", *map(str, places)],
            by_place,
        ),
        Table("Bigrams that the row has had before, and others", head, slices),
        Table(
            f"Validation at {near} tokens by window",
            ["", *(str(w) for w in (own, *settings.windows))],
            windows,
        ),
    ]


def panels(settings: Settings, done: Done) -> list[Panel]:
    """Loss by position, a panel for each training length."""
    made: list[Panel] = []
    for length in settings.lengths:
        lines: list[Line] = []
        for name in settings.architectures:
            if runs := _runs(settings, done, name, length, settings.shape.window):
                places = [p for p in runs[0]["by_position"] if int(p) >= 8]
                every = [[run["by_position"][p] for run in runs] for p in places]
                middle = [median(some) for some in every]
                spread = [(min(some), max(some)) for some in every]
                lines.append(Line(name, [int(p) for p in places], middle, spread))
        made.append(Panel(f"Trained at {length}", "position, from 2^k on", "nats a token", lines))
    return made


def _between(runs: Sequence[JSON], low: int, high: int) -> float:
    """Median over seeds of the mean nats at positions from `low` up to `high`, powers of two."""
    means: list[float] = []
    for run in runs:
        parts = [(int(p), nats) for p, nats in run["by_position"].items() if low <= int(p) < high]
        means.append(sum(p * nats for p, nats in parts) / sum(p for p, _ in parts))
    return median(means)


def verdicts(settings: Settings, done: Done) -> list[str]:
    """All four, where the runs that decide them are there."""
    own, (near, *later) = settings.shape.window, settings.lengths
    short = {name: _runs(settings, done, name, near, own) for name in settings.architectures}
    long = {name: _runs(settings, done, name, later[-1], own) for name in short} if later else {}
    far = 8192
    if near != 256 or settings.read < far or not all(short[name] for name in ("griffin", "hawk")):
        return []
    said: list[str] = []
    for name, least, most in (("griffin", -9.0, 0.02), ("hawk", -9.0, 0.02), ("mqa", 0.3, 99.0)):
        if short.get(name):
            before, after = (_between(short[name], *p) for p in ((128, 256), (1024, far)))
            words = f"at most {most}" if name != "mqa" else f"more than {least}"
            said.append(
                verdict(
                    f"1, {LABELS[name]} trained at 256, positions 1,024 to 8,191 over 128 to 255, "
                    f"{words}",
                    least < after - before <= most,
                    f"{after - before:+.3f}: {before:.3f} and {after:.3f}",
                )
            )
    both = [name for name in short if short[name] and long.get(name)]
    if both:
        gain = {n: _between(short[n], 1024, far) - _between(long[n], 1024, far) for n in both}
        loss = {n: _between(long[n], 1, 256) - _between(short[n], 1, 256) for n in both}
        for claim, found, held in (
            ("2, trained at 1,024 better at 1,024 to 8,191", gain, min(gain.values()) > 0),
            (
                "2, trained at 1,024 worse by 0 to 0.05 below 256",
                loss,
                all(0 <= value <= 0.05 for value in loss.values()),
            ),
        ):
            each = ", ".join(f"{LABELS[name]} {value:+.3f}" for name, value in found.items())
            said.append(verdict(claim, held, each))
    seen, new = (
        median([r["repeated"][key] for r in short["hawk"]])
        - median([r["repeated"][key] for r in short["griffin"]])
        for key in ("seen", "new")
    )
    claim = "3, Hawk's loss over Griffin's, on bigrams seen before more than on others"
    said.append(verdict(claim, seen > new, f"{seen:+.3f} and {new:+.3f}"))
    moved: dict[str, float] = {}
    for name in ("griffin", "local"):
        each = [_runs(settings, done, name, near, window) for window in (16, 256)]
        if all(each):
            first, last = (median([run["score"] for run in some]) for some in each)
            moved[name] = abs(last - first)
    if len(moved) == 2:
        claim = (
            "4, from window 16 to 256 Griffin moves by less than 0.03, local attention twice that"
        )
        held = moved["griffin"] < 0.03 and moved["local"] > 2 * moved["griffin"]
        said.append(verdict(claim, held, f"{moved['griffin']:.3f} and {moved['local']:.3f}"))
    return said


STUDY = Study(
    title="Books: loss by position",
    question="Does a model get better, or at least not worse, past the length it was trained at?",
    setup="""\
English novels (ELTeC-eng) in fledgling's vocabulary of 2,048 pieces, every tenth author's books
held out; without --data the bundled book, its last tenths held out, which is said in every cell.
Every architecture is trained at two lengths on equally many tokens, rates swept at the shorter
one, then reads held-out novels from their beginnings on, the state carried, and the loss is taken
by position. *Seen*: tokens that followed the same token earlier in the row, where recall can help
(Zoology's slice); *new*: the others. *By window*: attention windows of Griffin and of local
attention alone.""",
    beside="""\
- Griffin (2402.19427), figure 5 and appendix G, 1B models: Hawk and Griffin trained at 2,048 go
  on improving to at least four times that; MQA with rotary positions or none does not. Trained at
  8,192 they are better from 8,192 on and slightly worse before. Curves without numbers.
- Appendix E, 400M: Griffin with a window of 1,024 is below global MQA at 2,048, 4,096 and 8,192;
  MQA with local windows is clearly worse than both. Losses between 2.50 and 2.66.
- Zoology (2312.04927), table 1, 355M, perplexity on repeated bigrams / others: attention 1.98 /
  10.62, RWKV 3.82 / 10.51, H3 3.83 / 10.75, Hyena 4.81 / 11.00.""",
    limits="""\
A tenth of a million parameters and 0.3 million tokens at scale cpu: the state is worth little to
such a model yet, so a flat curve shows that nothing breaks, not that much is remembered. One
seed. Four rows read far: neighbouring points of a curve share their texts, other texts
would move all of them together. Rotary positions without any of the cures there are for them.""",
    scales=SCALES,
    plan=plan,
    measure=measure,
    tables=tables,
    panels=panels,
    verdicts=verdicts,
)
