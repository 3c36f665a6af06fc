"""Two names for one tensor: the table of a format, walked in both directions, nothing left over.

A row names a tensor as ours and as theirs. `{i}` stands for a layer's number, `{any}` for any name.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointMismatch

Change = Callable[[Tensor], Tensor]
Shape = tuple[int, ...]

_HOLES = {"{i}": r"(0|[1-9][0-9]*)", "{any}": r"(.+)"}
_SHOWN = 10  # names that a message lists
_ROW_PADDING = 64  # tables padded for the hardware have a multiple of this many rows


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Rename:
    """A tensor's name in the model and in the file.

    load turns theirs into ours and save ours into theirs, without copying where a view will do.
    padded: the file may hold more rows than the model, up to a multiple of 64; they are dropped.
    part: (which, of how many) where theirs stacks several of ours along a new first axis, one row
    for each; load and save speak of the part.
    """

    ours: str
    theirs: str
    load: Change = _same
    save: Change = _same
    padded: bool = False
    part: tuple[int, int] | None = None

    def for_parameter(self, name: str) -> "Rename | None":
        """This row for one parameter of the model, or None where it speaks of others."""
        hole = next((hole for hole in _HOLES if hole in self.ours), None)
        if hole is None:
            return self if name == self.ours else None
        before, after = (re.escape(part) for part in self.ours.split(hole))
        match = re.fullmatch(before + _HOLES[hole] + after, name)
        return match and replace(self, ours=name, theirs=self.theirs.replace(hole, match[1]))

    def their_shape(self, ours: Shape) -> Shape:
        """The shape in the file of a parameter of this shape."""
        alone = tuple(self.save(torch.empty(ours, device="meta")).shape)
        return alone if self.part is None else (self.part[1], *alone)

    def take(self, theirs: Tensor, ours: Shape) -> Tensor:
        """The parameter of this shape in a tensor of the file: a view where one will do."""
        if self.padded:
            theirs = theirs[: self.their_shape(ours)[0]]
        return self.load(theirs if self.part is None else theirs[self.part[0]])

    def fits(self, found: Shape, ours: Shape) -> bool:
        """Whether a tensor of the shape `found` in the file is this parameter."""
        wanted = self.their_shape(ours)
        if not self.padded or found[1:] != wanted[1:] or not found or found[0] <= wanted[0]:
            return found == wanted
        return found[0] % _ROW_PADDING == 0


def expand(table: Iterable[Rename], parameters: Collection[str], form: str) -> list[Rename]:
    """One row per parameter that the model really has, in the model's order.

    Raises CheckpointMismatch where the format `form` has no name, or two names, for a parameter, or
    one name for two parameters, or where of a tensor that stacks several one is missing.
    """
    table = tuple(table)
    plan: list[Rename] = []
    nameless: list[str] = []
    for name in parameters:
        rows = [row for row in (r.for_parameter(name) for r in table) if row is not None]
        if len(rows) == 1:
            plan += rows
        else:
            nameless.append(name)
    if nameless:
        raise CheckpointMismatch(
            f"the format {form!r} has no name for {_list(nameless)}; "
            'save this model with format="griffin"'
        )
    if len({(row.theirs, row.part) for row in plan}) < len(plan) or any(
        len(rows) != (rows[0].part or (0, 1))[1] for rows in by_theirs(plan).values()
    ):
        raise CheckpointMismatch(f"the format {form!r} gives two parameters one name")
    return plan


def by_theirs(plan: Iterable[Rename]) -> dict[str, list[Rename]]:
    """The rows of each of their tensors, in the order of its parts."""
    found: dict[str, list[Rename]] = {}
    for row in plan:
        found.setdefault(row.theirs, []).append(row)
    return {name: sorted(rows, key=lambda row: row.part or (0, 1)) for name, rows in found.items()}


def check_nothing_left_over(
    plan: Iterable[Rename],
    ours: Mapping[str, Shape],
    theirs: Mapping[str, Shape],
    duplicates: Collection[str],
    where: Path,
) -> None:
    """Every parameter is in the file, in its shape, and every tensor of the file is a parameter.

    ours: shapes by our names; theirs: shapes by the file's names; duplicates: their names that may
    stand in the file besides. Raises CheckpointMismatch naming up to ten of each kind.
    """
    plan = tuple(rows[0] for rows in by_theirs(plan).values())
    missing = [f"{row.theirs} {row.their_shape(ours[row.ours])}" for row in plan
               if row.theirs not in theirs]  # fmt: skip
    misshaped = [
        f"{row.theirs}: {theirs[row.theirs]} instead of {row.their_shape(ours[row.ours])}"
        for row in plan
        if row.theirs in theirs and not row.fits(theirs[row.theirs], ours[row.ours])
    ]
    known = {row.theirs for row in plan} | set(duplicates)
    extra = [f"{name} {shape}" for name, shape in theirs.items() if name not in known]
    kinds = {"missing": missing, "of another shape": misshaped, "not part of the model": extra}
    faults = [f"{len(names)} {kind}: {_list(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise CheckpointMismatch(
            f"the tensors in {where} are not those of the model that its config describes; "
            f"{'; '.join(faults)}; fetch the checkpoint again, or give the config that fits it"
        )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:200] for name in names[:_SHOWN]) + more
