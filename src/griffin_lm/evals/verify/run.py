"""One model from its files to a report: what is done in which order, and with what arithmetic."""

import platform
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from ...checkpoints import detect, read_config, save_model, saved_quantization
from ...checkpoints.hub import memory_at_hand
from ...errors import BackendUnavailable, CheckpointMismatch, ConfigError, GriffinError
from ...inference import load
from ...inference.loading import BUNDLED, check_choices, find, pick_device, pick_dtype
from ...models import PRESETS, Griffin, ModelConfig, resolve_config
from ...models.sizes import memory, parameter_counts
from ...text import Tokenizer, load_tokenizer
from .. import report as measured
from . import equations, invariants, inventory, language, peer
from .lines import Line
from .report import Report, Section
from .subject import Subject
from .vocabulary import check_tokenizer

Progress = Callable[[str, int, int], None]
SPARE = 1.2  # of the weights in fp32: largest tensors beside their copies
WORKING = 1_500_000_000  # bytes: logits of 256k words, one block in float64
STAND_IN = "fledgling"  # whose vocabulary random weights are read with


def verify(
    source: str | PathLike[str],
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    kernels: str = "auto",
    config: ModelConfig | str | dict[str, Any] | None = None,
    tokenizer: Tokenizer | str | PathLike[str] | None = None,
    offline: bool | None = None,
    random: bool = False,
    long: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Verifies a model on its own weights; docs/verify.md says what each line proves.

    source, device, kernels, config, tokenizer, offline: as in `load`. dtype: of the
    arithmetic; "auto" is float32 where the memory at hand allows it, else the dtype of the files.
    quantize: refused.
    random: `source` names a preset, of which random weights in bfloat16 are saved in a temporary
    folder and verified. long: also read past a long window. progress: (what, done, in all).

    Raises a GriffinError for what cannot be loaded; what then goes wrong is a line that fails.
    """
    if quantize is not None:
        raise ConfigError(
            f"quantize={quantize!r}: verify holds the weights in the files against the equations, "
            "and quantised ones are rounded on purpose; leave it out"
        )
    check_choices(None, kernels)
    name = fspath(source)
    with random_checkpoint(name) if random else nullcontext(find(source, offline)) as where:
        if random:
            config, tokenizer = None, tokenizer or BUNDLED[STAND_IN]
        if saved_quantization(where) is not None:
            raise ConfigError(
                f"{where} is quantised: verify holds weights against the equations, and these were "
                "rounded on purpose; verify the checkpoint that it was made of"
            )
        began, busy = time.perf_counter(), time.process_time()
        form, settled = detect(where), read_config(where, config)
        files = inventory.files_of(where, lambda done, total: progress("hashing", done, total))
        place = pick_device(device)
        kind, why = (
            arithmetic(settled, files.main_dtype, place) if dtype == "auto" else (dtype, "asked")
        )
        lm = load(
            where,
            device=str(place),
            dtype=pick_dtype(kind, place),
            kernels=kernels,
            config=config,
            tokenizer=tokenizer,
            progress=lambda done, total: progress("loading", done, total),
        )
        subject = Subject(name, where, form, lm, random, long)
        report = Report(name, {}, settled.to_dict(), parameter_counts(settled), files)
        for title, check in _checks(subject, files, progress):
            started, lines = time.perf_counter(), list[Line]()
            try:
                with torch.no_grad():
                    lines += check
            except BackendUnavailable:  # what was asked for can't be had: an error, not a finding
                raise
            except (GriffinError, RuntimeError) as error:
                reason = f"{type(error).__name__}: {error}"
                lines.append(Line(f"{title}: stopped", "FAIL", "", note=reason[:400]))
            report.sections.append(Section(title, lines, time.perf_counter() - started))
        shown = str(kind).removeprefix("torch.")
        report.facts = facts(subject, f"{shown} ({why})", kernels, place)
        report.facts["time"] = (
            f"{time.perf_counter() - began:.0f} s, "
            f"{time.process_time() - busy:.0f} s of it on a processor (threads added up)"
        )
        return report


def _checks(
    subject: Subject, files: inventory.Files, progress: Progress
) -> Iterator[tuple[str, Iterator[Line]]]:
    """Titles and checks, in order; the last one lets go of the model."""
    rows = subject.model.config.vocab

    def inventoried() -> Iterator[Line]:
        yield from inventory.check_counts(subject.model, files)
        yield from inventory.check_values(subject.model)
        yield from language.fingerprint(subject)

    def told(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(what, done, total)

    ways = [
        invariants.chunks,
        invariants.single_tokens,
        invariants.rows_and_padding,
        invariants.packed_documents,
        invariants.forked_state,
        invariants.saved_state,
        *([invariants.long_window] if subject.long else []),
    ]

    def read_otherwise() -> Iterator[Line]:
        for done, way in enumerate(ways):
            progress("reading in other ways", done, len(ways))
            yield from way(subject)

    def equal() -> Iterator[Line]:
        yield from equations.whole_model(subject, told("equations, layers"))
        yield from equations.whole_window(subject, told("windows, layers"))

    yield "Weights", inventoried()
    yield "Tokenizer", check_tokenizer(subject.lm.tokenizer, rows)
    yield "Language", language.bits_per_byte(subject, told("the passage, tokens"))
    yield "The same tokens read in other ways", read_otherwise()
    yield "The papers' equations", equal()
    progress("transformers", 0, 1)
    yield "transformers", peer.compare(subject, subject.free)


def arithmetic(
    config: ModelConfig, stored: torch.dtype, device: torch.device
) -> tuple[str | torch.dtype, str]:
    """The dtype to compute in, and why: float32 where it fits into the memory at hand."""
    needed = int(SPARE * memory(config, torch.float32).weights) + WORKING
    at_hand = memory_at_hand(device).free
    words = f"{needed / 1e9:.1f} GB wanted for float32, {at_hand / 1e9:.1f} GB at hand"
    return (torch.float32, words) if needed <= at_hand else (stored, f"as in the files: {words}")


def facts(subject: Subject, computed: str, kernels: str, device: torch.device) -> dict[str, str]:
    """Versions, machine, and what was run."""
    machine = measured.machine()
    found = {
        "date": date.today().isoformat(),
        "model": subject.name + (" (random weights)" if subject.random else ""),
        "format": subject.format,
        "arithmetic": computed,
        "kernels": kernels,
        "device": f"{device}" + (f", {machine['gpu']}" if device.type == "cuda" else ""),
        "processor": f"{machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, {memory_at_hand().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    for package in ("griffin-lm", "torch", "transformers", "safetensors", "sentencepiece"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    short = subject.reach if subject.reach < subject.window else None
    found["window"] = f"{subject.window} earlier tokens" if subject.window else "none"
    if short is not None:
        found["window"] += f"; {short} where the same tokens are read in other ways, same weights"
    found["limit of logits"] = (
        f"{subject.limit:.1e}: 5 x {subject.noise:.1e}, which one more rounding a block changes"
    )
    return found


@contextmanager
def random_checkpoint(preset: str) -> Generator[Path]:
    """A temporary folder with random bfloat16 weights of a preset, biases and scales among them.

    In the Hugging Face format where it can hold the model, so that transformers can read it.
    """
    config = resolve_config(preset)
    tokenizer = load_tokenizer(BUNDLED[STAND_IN])
    if config.vocab < tokenizer.vocab_size:
        raise ConfigError(
            f"{preset!r} has a vocabulary of {config.vocab}; random weights are read with that of "
            f"{STAND_IN}, which has {tokenizer.vocab_size}: choose a larger preset, one of "
            + ", ".join(n for n, c in PRESETS.items() if c.vocab >= tokenizer.vocab_size)
        )
    model = Griffin(config, "cpu", torch.bfloat16).requires_grad_(False).initialise(seed=0)
    random = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if not parameter.any():  # at zero a bias that is forgotten would not show
            parameter.normal_(std=0.05, generator=random)
    with tempfile.TemporaryDirectory(prefix="griffin-verify-") as folder:
        where = Path(folder) / "model"
        try:
            save_model(model, where, "huggingface", tokenizer)
        except CheckpointMismatch:
            save_model(model, where, "griffin", tokenizer)
        del model
        yield where
