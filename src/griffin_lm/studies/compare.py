"""`griffin compare` in one call: cells, then page, plot and JSON."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..shapes import JSON
from . import plots
from .grid import cells_folder, finished, replace_file, run, write
from .page import figures, largest, page
from .registry import STUDIES
from .study import SCALES, TINY, Place, Study


def study_of(name: str) -> Study:
    """The study of that name. Raises InputError for one that there is not, listing them."""
    if name not in STUDIES:
        raise InputError(f"no study {name!r}; there are: {', '.join(STUDIES)}")
    return STUDIES[name]


def compare(
    name: str,
    scale: str,
    out: Path,
    place: Place,
    command: str,
    minutes: float = 0.0,
    only: Sequence[str] = (),
) -> JSON:
    """Measures a study's unfinished cells into `out`, then writes what they come to.

    out gets NAME.md, NAME.json, NAME.svg and NAME.png, at the largest scale with a finished cell,
    and cells/NAME/SCALE/. See `grid.run` for `minutes` and `only`. Returns the JSON file's figures;
    raises InputError for an unknown study or scale, MissingExtra without matplotlib.
    """
    study = study_of(name)
    if scale not in study.scales:
        raise InputError(f"--scale {scale!r} is none of: {', '.join(SCALES)}")
    try:
        run(
            study,
            study.scales[scale],
            cells_folder(out, name, scale),
            place,
            command,
            minutes,
            only,
        )
    finally:  # whatever stopped it, what is finished can be read
        found = publish(name, out, (*SCALES, TINY) if scale == TINY else SCALES)
    return found


def publish(name: str, out: Path, scales: Sequence[str] = SCALES) -> JSON:
    """Writes page, plot and JSON from the cells that are there, measuring nothing."""
    study = study_of(name)
    cells = {scale: finished(cells_folder(out, name, scale)) for scale in scales}
    found = figures(name, study, cells)
    scale = largest(cells)
    replace_file(out / f"{name}.md", page(name, study, cells))
    write(out / f"{name}.json", found)
    if scale is not None:
        plots.draw(study.panels(study.scales[scale], cells[scale]), out / f"{name}.svg")
    return found
