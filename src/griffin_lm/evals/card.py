"""fledgling's model card, written from what was measured and nothing else.

    python -m griffin_lm.evals.card training.json near.json [far.json ...] > README.md
    python -m griffin_lm.evals.card --results training.json near.json [far.json ...] > page.md
    python -m griffin_lm.evals.card --plot=FILE.svg training.json near.json [far.json ...]

`training.json` is what `griffin_lm.training.export` writes; the others come from
`griffin evaluate ... --recall --json FILE` (far.json and so on: longer distances, fewer rows).
"""

import json
import sys
from pathlib import Path
from typing import Any

from .recall import Cell, recall_table
from .recall_plot import draw

WINDOW = 64  # fledgling's local attention, in tokens
_FORGET = {
    "carried": "carried from the beginning",
    "h_zeroed_every_window": "h zeroed every 64 tokens",
    "h_zeroed_every_token": "h zeroed before every token",
}


def card(training: dict[str, Any], measured: dict[str, Any], *far: dict[str, Any]) -> str:
    """Markdown."""
    loss, machine = measured["loss"], training["machine"]
    held_out = ", ".join(training["held_out"])
    near, afterwards = _cells(measured), _afterwards(training)
    sections = [
        f"""---
library_name: griffin-lm
pipeline_tag: text-generation
license: apache-2.0
language: en
---

# fledgling

The model that comes with griffin-lm: a small Griffin to run, read and take apart anywhere.
{measured["parameters"]:,} parameters in bfloat16: six layers of width 128 (recurrent, recurrent,
local attention, twice), window 64, a SentencePiece vocabulary of 2,048. It writes words like a
Victorian novel's and has no knowledge or sense to speak of. What it can do is carry a note through
text that is hundreds of times longer than its window, in a state of fixed size.

```
<note>The name is Emma, the place is Bath, the number is 47.</note> ... prose ...
<user>What is the place?<model> Bath<end>
```

Names and places are those listed in `griffin_lm.evals.memo_text`, numbers are 10 to 99; each is one
token. Without a note the answer is "There is no such note.". Other wordings were not trained. Where
notes contradict each other nothing is promised.""",
        f"""## Training

- Data: {training["train_books"]} English novels, 1840 to 1920 ({training["train_bytes"]:,} bytes),
  of ELTeC-eng (ed. Lou Burnard, COST Action CA16204, DOI 10.5281/zenodo.4662490; texts in the
  public domain, markup CC BY 4.0), with memo rows set into them.
- Held out: {held_out}.
- {training["tokens"]:,} tokens in {training["steps"]:,} steps of 16 rows by 256, state carried,
  gradients cut at the steps' borders; {training["seconds"]:,} s on one core of a machine that did
  other work too ({machine["processor"]}, torch {machine["torch"]}).
- The longest distance between note and question in training: {training["longest_gap"]:,} tokens.
- Made by `griffin pretrain recipes/fledgling.py --data DIR --out RUN` with the books above,
  settings changed on the way: docs/log.md of the repository tells which and when.{afterwards}""",
        f"""## Loss on the held-out novels

{loss["segments"]} segments of {loss["segment_tokens"]:,} tokens, each read from its beginning.

| recurrent state | bits per byte | nats per token |
|---|---|---|
{_loss_rows(loss)}

Without the recurrent state (h zeroed before every token; the window's keys and the conv's taps
stay) the loss is {_worse(loss, "h_zeroed_every_token")} bits per byte; forgetting every 64 tokens
costs {_worse(loss, "h_zeroed_every_window")}.""",
        f"""## Recall by distance

A note in the held-out novels, then prose, then a question; greedy, first token of the answer. "no
note": the same without the note, right where it says so. n rows a cell, so that a share is
uncertain by about 1 / sqrt(n) at worst.

{recall_table(near)}""",
    ]
    for number, some in enumerate(far):
        head = "Farther still" if number else "Farther"
        sections.append(f"{head}, with fewer rows:\n\n{recall_table(_cells(some))}")
    if any(_cells(some)[-1].distance > some["longest_text"] for some in far):
        sections.append(
            "Where no held-out novel is so long they follow one another, from the first one again\n"
            "after the last."
        )
    samples = "\n\n".join(
        f"Seed {sample['seed']}, temperature {sample['temperature']}, top_p {sample['top_p']}:\n\n"
        + "\n".join(f"> {line}" for line in str(sample["text"]).split("\n"))
        for sample in measured.get("samples", [])
    )
    if samples:
        sections.append(f"## Samples as they came\n\n{samples}")
    return "\n\n".join(sections) + "\n"


def _afterwards(training: dict[str, Any]) -> str:
    """What was done to the trained weights."""
    lines = ""
    if gate := training.get("gate_stretched"):
        lines += f"""
- Afterwards, without training, the recurrence gate of the first layer was stretched by {gate["by"]}
  in {len(gate["channels"])} channels, so that prose takes less from what they hold:
  `python -m griffin_lm.training.memo.contrast BEFORE DIR OUT`; docs/log.md tells why."""
    if far := training.get("asked_far"):
        channels = sum(training["gates_shut_in_prose"]["channels"].values())
        lines += f"""
- Then both gates of {channels} slow channels were fitted anew, shut in prose and at notes as they
  were, and all but the embedding was trained for {far["steps"]} steps on questions as far as
  {far["distances"][-1]:,} tokens behind their note:
  `python -m griffin_lm.training.memo.far BEFORE DIR OUT`; docs/log.md tells why."""
    return lines


def results_page(training: dict[str, Any], measured: dict[str, Any], *far: dict[str, Any]) -> str:
    """The card's figures as a page of docs/results, with the commands that make them again."""
    _, _, figures = card(training, measured, *far).partition("## Training")
    books = ",".join(training["held_out"])
    text = measured["text"]
    loss = measured["loss"]
    samples = len(measured.get("samples", []))
    commands = [
        f"griffin evaluate fledgling --text {text} --books {books} --forget --recall \\",
        f"    --segment {loss['segment_tokens']} --segments {loss['segments']} "
        f"--rows {_cells(measured)[0].n} --samples {samples} --json near.json",
    ]
    names = [f"far{'' if n == 1 else n}.json" for n, _ in enumerate(far, 1)]
    for some, name in zip(far, names, strict=True):
        cells = _cells(some)
        distances = ",".join(str(each) for each in sorted({cell.distance for cell in cells}))
        commands += [
            f"griffin evaluate fledgling --text {text} --books {books} --recall \\",
            f"    --segment 256 --segments 1 --distances {distances} --rows {cells[0].n} "
            f"--json {name}",
        ]
    given = " ".join(["training.json near.json", *names])
    commands += [
        f"python -m griffin_lm.evals.card --results {given}",
        f"python -m griffin_lm.evals.card --plot=fledgling.svg {given}",
    ]
    heading = "## Recall by distance\n\n"
    figures = figures.replace(heading, f"{heading}![Share recalled by distance](fledgling.svg)\n\n")
    head = "# fledgling, as measured\n\nMade by (raw figures in `fledgling.json`):\n\n```\n"
    return head + "\n".join(commands) + "\n```\n\n## Training" + figures


def _cells(measured: dict[str, Any]) -> list[Cell]:
    rows = ({k: v for k, v in row.items() if k != "share"} for row in measured["recall"])
    return [Cell(**row) for row in rows]


def _loss_rows(loss: dict[str, Any]) -> str:
    return "\n".join(
        f"| {label} | {loss[name]['bits_per_byte']:.4f} | {loss[name]['nats_per_token']:.4f} |"
        for name, label in _FORGET.items()
        if name in loss
    )


def _worse(loss: dict[str, Any], name: str) -> str:
    """How much is lost, in bits per byte."""
    return f"{loss[name]['bits_per_byte'] - loss['carried']['bits_per_byte']:+.3f}"


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    plots = [name.removeprefix("--plot=") for name in sys.argv[1:] if name.startswith("--plot=")]
    if len(names) < 2:
        sys.exit(
            "usage: python -m griffin_lm.evals.card [--results | --plot=FILE.svg] training.json "
            "near.json [far.json ...]"
        )
    read = [json.loads(Path(name).read_text(encoding="utf-8")) for name in names]
    for plot in plots:
        draw([cell for some in read[1:] for cell in _cells(some)], WINDOW, Path(plot))
    if plots:
        sys.exit()
    write = results_page if "--results" in sys.argv else card
    sys.stdout.write(write(*read))
