"""Which format lies at a path."""

from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFound, ConfigError
from ..shapes import JSON
from .deepmind import DEEPMIND_FLAX, DEEPMIND_TORCH
from .files import CONFIG, read_json
from .format import Format, Place
from .huggingface import DIALECTS, HUGGINGFACE
from .meta import META
from .native import NATIVE

FORMATS: dict[str, Format] = {
    form.name: form for form in (NATIVE, HUGGINGFACE, DEEPMIND_TORCH, DEEPMIND_FLAX)
}
ALSO_READ = (META,)  # formats of which we write none
LATEST = "latest"  # the file in a training run's folder that names its newest checkpoint


def look_at(path: Path) -> Place:
    """What lies at a path: a folder, or a file and what is beside it.

    Raises CheckpointNotFound where nothing does, CheckpointCorrupt where config.json is no JSON.
    """
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise CheckpointNotFound(f"there is no folder {path}; check the name")
    file = folder / CONFIG
    config: JSON | None = read_json(file) if file.exists() else None
    return Place(path, folder, config)


def recognise(place: Place) -> Format:
    """The format of what lies there. Raises as `detect`."""
    for form in (*FORMATS.values(), *ALSO_READ):
        if form.matches(place):
            return form
    path, config = place.path, place.config
    if path.is_file():
        raise CheckpointNotFound(
            f"{path} is a file; a checkpoint is a folder with {CONFIG} and weights: give the folder"
        )
    if config is None:
        raise CheckpointNotFound(
            f"{path} holds no {CONFIG}, so it is no checkpoint, or one not saved to its end"
        )
    found = config.get("model_type", config.get("format"))
    raise CheckpointError(
        f"{place.file} is of the model type {found!r:.60}; known: "
        f"{', '.join(map(repr, DIALECTS))} (Hugging Face) and griffin-lm's own"
    )


def latest_of_run(path: Path) -> Path | None:
    """The checkpoint that the folder of a training run names as its latest; None for other paths.

    Raises CheckpointNotFound where it names one that is not there.
    """
    try:
        name = (path / LATEST).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    if (path / CONFIG).exists() or not name or Path(name).name != name:
        return None
    if not (path / name / CONFIG).is_file():
        there = ", ".join(sorted(step.name for step in path.glob("step-*") if step.is_dir()))
        raise CheckpointNotFound(
            f"{path} is a training run whose {LATEST!r} names {name}, which is not there "
            f"(there are: {there or 'none'}); name one of them, or go on with --resume auto"
        )
    return path / name


def folders_beside(path: Path) -> tuple[Path, ...]:
    """Where the files that go with a checkpoint's weights are looked for, such as the tokenizer.

    The folder, or a file's folder; then the folder around it: for DeepMind's layouts, whose
    archives put it there, and for a checkpoint of a training run. Raises as `detect`.
    """
    place = look_at(path)
    outer = place.folder.absolute().parent
    around = recognise(place).name in ("deepmind-torch", "deepmind-flax")
    return (place.folder, outer) if around or (outer / LATEST).is_file() else (place.folder,)


def format_named(name: str) -> Format:
    """A row of FORMATS; ConfigError lists them for a name that is none."""
    if name not in FORMATS:
        raise ConfigError(f"no format {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]
