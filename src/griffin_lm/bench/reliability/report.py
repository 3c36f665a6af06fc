"""The figures of a run as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from .crew import LONGEST_CPU, LONGEST_WALL
from .fuzzing import Row

HEAD = (
    "| reader | inputs | refused | loaded | failures | slowest | largest memory over its bound "
    "| bound |\n|---|---|---|---|---|---|---|---|"
)


def fuzz_table(rows: Sequence[Row]) -> str:
    """A line per reader, and their sums."""
    lines = [
        f"| {row.reader} | {row.inputs:,} | {row.refused:,} | {row.loaded:,} "
        f"| {len(row.failures):,} | {row.slowest_seconds:.3f} s "
        f"| {row.memory_share:.3f} ({row.memory_bytes / 2**20:.1f} MiB) "
        f"| {row.bound[0] >> 20} MiB + {row.bound[1]} x size |"
        for row in rows
    ]
    lines.append(
        f"| all | {sum(r.inputs for r in rows):,} | {sum(r.refused for r in rows):,} "
        f"| {sum(r.loaded for r in rows):,} | {sum(len(r.failures) for r in rows):,} "
        f"| {max((r.slowest_seconds for r in rows), default=0):.3f} s "
        f"| {max((r.memory_share for r in rows), default=0):.3f} | |"
    )
    return "\n".join([HEAD, *lines])


def fuzz_section(rows: Sequence[Row], seed: int) -> str:
    """The table, and what its words mean."""
    return f"""## Damaged files

Small good files of every kind are damaged: bits and bytes, cuts, copies, integers where lengths
stand; JSON, Protocol Buffers, zip entries and pickle opcodes by their structure; then, for half of
the inputs of formats with checksums, the checksums are computed anew. Seed {seed}.

{fuzz_table(rows)}

- **refused**: a `GriffinError` of at most a page that names the file. **loaded**: a result that
  could be used. For a checkpoint that is parameters as its config says, and a call of the model;
  for a state, a call that goes on from it; for a vocabulary, texts to ids and every id to text.
  Where checksums were not computed anew, a file of ours loaded only as the original, to the bit.
- **failures**: anything else. Another error; a process that dies; more than {LONGEST_CPU:.0f} s of
  processor time or {LONGEST_WALL:.0f} s by the clock for one input; more memory than the bound; a
  result that is half-built; damage that went unnoticed.
- **the bound of memory**: so much whatever the files, and so much for every byte of theirs. The
  system refuses more to the process (`RLIMIT_DATA`), whether it is written
  to or not; the last column is the peak of resident memory over what stood before, of its bound.
- **slowest**: processor time, which other work on the machine leaves alone.
"""


def page(studies: Sequence[Mapping[str, Any]]) -> str:
    """docs/results/reliability.md, of studies: section, command, date and machine of each."""
    return (
        "# Reliability\n\n"
        + "\n".join(map(_made, studies))
        + "\nWhat was found this way, and mended, stands in the [log](../log.md).\n"
    )


def _made(study: Mapping[str, Any]) -> str:
    """A study's section, and under it how it was made."""
    facts = ", ".join(f"{name} {value}" for name, value in study["machine"].items())
    made = f"Made by `{study['command']}` on {study['date']}. Machine: {facts}."
    return f"{study['section'].rstrip()}\n\n{made}\n"
