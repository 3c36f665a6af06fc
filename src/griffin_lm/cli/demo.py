"""`griffin demo`: a note is planted, a long text read, and the note asked for in a new process."""

import json as json_module
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import GriffinError, InputError
from . import common
from .common import LoadOptions

if TYPE_CHECKING:
    from ..inference import LanguageModel
    from ..models import State

OPENING = "It was late in the evening when"
BUNDLE = Path(__file__).parent.parent / "fledgling"
LEAST = 16384  # tokens to read, unless the measured recall reaches further
GOOD = 0.9  # recall of every field that counts as reached
LEAD = 32  # tokens of the book before the note, as where recall was measured
CHUNK = 512
# keys and values of 18 layers, one head of 256 each, in bfloat16: Gemma 2B's cache, per token
GEMMA_BYTES = 2 * 18 * 256 * 2


def demo(
    name: Annotated[str | None, typer.Option(help="the note's name; asked for or drawn")] = None,
    place: Annotated[str | None, typer.Option(help="the note's place")] = None,
    number: Annotated[str | None, typer.Option(help="the note's number, from 10 to 99")] = None,
    book: Annotated[
        Path | None, typer.Option(help="another text to read, all of it (UTF-8)")
    ] = None,
    seed: Annotated[int, typer.Option(help="of what is drawn and written")] = 0,
    save_state: common.StateOut = None,
    json: common.JsonOut = None,
    model: Annotated[str, typer.Option(hidden=True)] = "fledgling",
    device: common.Device = "auto",
    dtype: common.DType = "auto",
    quantize: common.Quantize = None,
    kernels: common.Kernels = "auto",
    offline: common.Offline = False,
) -> None:
    """A minute with fledgling, the bundled model.

    It writes a little. Then a note of your choosing is planted, a long text is read, the state is
    saved, and a new process opens it and asks for the note.
    """
    text = read_text(book)  # before anything slow: a wrong path should not cost a minute
    lm = common.load(model, LoadOptions(device, dtype, quantize, kernels, offline=offline))
    write_a_little(lm, seed)
    note = choose_note(lm, {"name": name, "place": place, "number": number}, seed)
    recall = measured_recall()
    limit = None if book is not None else reach(recall)
    state, distance, seconds = read_book(lm, note, text, limit)
    with tempfile.TemporaryDirectory() as folder:
        path = save_state or Path(folder) / "demo.state"
        state.save(path)
        print(f"\nThe state is saved: {path.stat().st_size:,} bytes. A new process opens it:\n")
        where = ["--device", device, "--dtype", dtype, "--kernels", kernels]
        answers = {field: ask(model, path, field, where) for field in note}
    report = compare(note, answers, recall, distance)
    figures = {"note": note, "answers": answers, "tokens_read": int(state.tokens)}
    figures |= {"tokens_since_the_note": distance, "read_seconds": seconds, "recall": report}
    figures |= {"state_bytes": state.nbytes, "gemma_2b_cache_bytes": gemma_bytes(state)}
    common.write_json(json, figures)


def read_text(book: Path | None) -> str:
    """The text to read: the bundled one, or a file. Raises `InputError` where it can't be read."""
    path = book or BUNDLE / "book.txt"
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"can't read the book {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"the book {path} is not UTF-8 (byte {error.start}); convert it"
        ) from error


def write_a_little(lm: "LanguageModel", seed: int) -> None:
    """Sampled text, as it comes."""
    count = sum(parameter.numel() for parameter in lm.model.parameters())
    print(f"fledgling, {count:,} parameters, writes:\n\n  {OPENING}", end="", flush=True)
    for piece in lm.stream(OPENING, max_new_tokens=80, temperature=0.7, top_p=0.95, seed=seed):
        print(piece.replace("\n", "\n  "), end="", flush=True)
    print("\n")


def choose_note(lm: "LanguageModel", given: dict[str, str | None], seed: int) -> dict[str, str]:
    """Each field's value: as given, else asked for on a terminal, else drawn by the seed.

    Warns of a value that fledgling was not trained on: it remembers single tokens.
    """
    from ..evals.memo_text import VALUES, single_pieces

    trained = single_pieces(lambda text: lm.tokenizer.encode(text, bos=False, markers=True))
    drawn = random.Random(seed)
    note: dict[str, str] = {}
    for field, value in given.items():
        default = drawn.choice(sorted(trained[field]))
        if value is None and sys.stdin.isatty():
            value = input(f"A {field} for the note [{default}]: ")
        note[field] = (value or "").strip() or default
        if note[field] not in trained[field]:
            known = ", ".join(drawn.sample(VALUES[field], 5))
            print(
                f"warning: {note[field]!r} is not among the {len(trained[field])} values of "
                f"{field!r} that fledgling was trained to remember (such as {known})",
                file=sys.stderr,
            )
    return note


def read_book(
    lm: "LanguageModel", note: dict[str, str], text: str, limit: int | None
) -> tuple["State", int, float]:
    """Reads the text, with the note near its beginning, `limit` tokens of it after the note.

    Returns the state, the tokens since the note, and the seconds it took.
    """
    from ..evals.memo_text import note_text
    from ..inference import read_tokens

    ids = lm.encode(text)
    lead = LEAD + (lm.tokenizer.bos_id is not None)
    before, after = ids[:lead], ids[lead:][:limit]
    words = note_text(note)
    marked = lm.tokenizer.encode(words, bos=False, markers=True, continues=True)
    print(f"The note, planted after {LEAD} tokens:\n\n  {words}\n\nThen it reads on.")
    print("  tokens read        state   a cache as Gemma 2B's would be")
    shown = 0

    def progress(state: "State") -> None:
        nonlocal shown
        read, last = int(state.tokens), len(before) + len(marked) + len(after)
        terminal = sys.stdout.isatty()
        if terminal or read >= last or read - shown >= 4096:
            shown = read
            line = f"  {read:11,}   {state.nbytes:8,} B   {gemma_bytes(state):,} B"
            print(f"\r{line}" if terminal else line, end="" if terminal else "\n", flush=True)

    begun = time.perf_counter()
    state = read_tokens(lm.model, [*before, *marked, *after], chunk=CHUNK, on_chunk=progress)
    seconds = time.perf_counter() - begun
    if sys.stdout.isatty():
        print()
    return state, len(after), seconds


def gemma_bytes(state: "State") -> int:
    """What the keys and values of Gemma 2B, in bfloat16, would occupy after as many tokens."""
    return GEMMA_BYTES * int(state.tokens)


def ask(model: str, state: Path, field: str, options: list[str]) -> str:
    """The answer of a new process that opens the state by `griffin generate`."""
    from ..evals.memo_text import question_text

    words = [model, question_text(field), "--markers", "--state", str(state)]
    words = ["generate", *words, "--max-new-tokens", "12"]
    print(f"  griffin {' '.join(repr(word) if '<' in word else word for word in words)}")
    command = [sys.executable, "-m", "griffin_lm.cli.main", *words, *options]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise GriffinError(f"the new process failed: {done.stderr.strip()}")
    print(f"   {done.stdout.rstrip()}")
    return done.stdout.strip()


def measured_recall() -> dict[int, dict[str, float]]:
    """Recall by distance and field, as measured after training; {} if that wasn't done.

    recall.json is {"distances": {"16384": {"name": 0.97, ...}}}, or what `griffin evaluate --recall
    --json` writes: {"recall": [{"distance", "field", "noted", "share", ...}]}.
    """
    path = BUNDLE / "recall.json"
    if not path.exists():
        return {}
    try:
        found = json_module.loads(path.read_text(encoding="utf-8"))
        if "distances" in found:
            return {int(distance): dict(row) for distance, row in found["distances"].items()}
        table: dict[int, dict[str, float]] = {}
        for cell in found["recall"]:
            if cell["noted"]:
                table.setdefault(int(cell["distance"]), {})[cell["field"]] = float(cell["share"])
        return table
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); install griffin-lm again") from error


def reach(recall: dict[int, dict[str, float]]) -> int:
    """How far to read: the longest distance at which every field is remembered well, or 16k."""
    far = [distance for distance, row in recall.items() if min(row.values()) >= GOOD]
    return max([LEAST, *far])


def compare(
    note: dict[str, str],
    answers: dict[str, str],
    recall: dict[int, dict[str, float]],
    distance: int,
) -> dict[str, Any]:
    """Prints each answer beside the note, and the recall measured nearest to that distance."""
    print(f"\nAsked {distance:,} tokens after the note, far outside the attention window:")
    nearest = min(recall, key=lambda known: abs(known - distance), default=None)
    for field, value in note.items():
        # as where recall is measured, the beginning of the answer decides
        right = answers[field] == value or answers[field].startswith(f"{value} ")
        verdict = "right" if right else f"wrong: the note says {value}"
        print(f"  {field:<7} {answers[field]:<12} {verdict}")
    if nearest is None:
        print("Recall at this distance was not measured for this model.")
        return {}
    shares = ", ".join(f"{field} {share:.2f}" for field, share in recall[nearest].items())
    print(f"Recall measured at {nearest:,} tokens, many notes and books: {shares}.")
    return {"distance": nearest, **recall[nearest]}
