"""Which files of a repository make one checkpoint: weights once, config, vocabulary, no more.

A repository may hold the same model several times (safetensors, .pt, Orbax, pickles, GGUF). Chosen
is one of them, safetensors first; pickled .bin and .gguf files are never read, so never fetched.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...errors import CheckpointNotFound
from ..files import CONFIG, INDEX, WEIGHTS

# beside the weights: whatever says how to read them and how to talk to them
SMALL = (
    CONFIG,
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
# files of which an Orbax folder, of either layout, has one at its top
_ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "checkpoint")
_SAYING = re.compile(r"(?<![a-z0-9])(?:\d+b|it)(?![a-z0-9])")
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True)
class Selection:
    """A checkpoint within a repository.

    root     what to load, relative to the repository: "" (all of it), a folder, or a .pt file
    small    files that are fetched first, of a few MB at most
    weights  files that hold the weights
    words    what was chosen, and from what, for people
    """

    root: str
    small: tuple[str, ...]
    weights: tuple[str, ...]
    words: str

    @property
    def files(self) -> tuple[str, ...]:
        """All of them."""
        return self.small + self.weights


def select(repo: str, names: Collection[str]) -> Selection:
    """The checkpoint to fetch from a repository with files of these names.

    Raises CheckpointNotFound where there is none, or where several .pt files or Orbax folders are
    equally likely, naming them.
    """
    found = _safetensors(names) or _torch(repo, names) or _orbax(repo, names)
    if found is None:
        shown = ", ".join(sorted(names)[:10]) or "nothing"
        raise CheckpointNotFound(
            f"{repo} holds no checkpoint that can be read (safetensors, .pt or an Orbax folder); "
            f"it holds {shown}; pickled .bin and .gguf files are never read: look for another "
            "repository of the same model"
        )
    return found


def _safetensors(names: Collection[str]) -> Selection | None:
    homes = sorted(
        {_folder(name) for name in names if PurePosixPath(name).name in (WEIGHTS, INDEX)},
        key=lambda home: (home.count("/") + bool(home), home),
    )
    if not homes:
        return None
    home = homes[0]
    if _join(home, WEIGHTS) in names:
        weights, index = [_join(home, WEIGHTS)], ()
    else:
        index = (_join(home, INDEX),)
        weights = [
            name for name in names if _folder(name) == home and _SHARD.fullmatch(_leaf(name))
        ]
    words = f"safetensors, {_files(len(weights))}"
    return Selection(
        home, _beside(home, names) + index, tuple(sorted(weights)), words + _others(names, weights)
    )


def _torch(repo: str, names: Collection[str]) -> Selection | None:
    files = [name for name in names if name.endswith(".pt")]
    if not files:
        return None
    file = _likeliest(repo, files, ".pt files")
    words = f"PyTorch's {file}" + _others(names, [file])
    return Selection(file, _beside(_folder(file), names), (file,), words)


def _orbax(repo: str, names: Collection[str]) -> Selection | None:
    homes = {_folder(name) for name in names if _leaf(name) in _ORBAX}
    homes -= {home for home in homes if any(home.startswith(f"{up}/") for up in homes if up)}
    # a zarr array per parameter, and no file that says so: the folder above the arrays
    homes |= {_folder(_folder(name)) for name in names if _leaf(name) == ".zarray" and not homes}
    if not homes:
        return None
    home = _likeliest(repo, sorted(homes), "Orbax folders")
    small = _beside(home, names)
    # with our config.json above it, the folder above is the checkpoint
    root = _folder(home) if home and _join(_folder(home), CONFIG) in names else home
    inside = [name for name in names if (not home or name.startswith(f"{home}/"))]
    weights = [name for name in inside if name not in small and not _never(name)]
    words = f"Orbax folder {home or 'at the top'}, {_files(len(weights))}"
    return Selection(root, small, tuple(sorted(weights)), words)


def _likeliest(repo: str, names: list[str], kind: str) -> str:
    """The one, or the only one whose name has the repository's size and "it", if that has it."""
    wanted = _SAYING.findall(repo.lower())
    fitting = [name for name in names if sorted(_SAYING.findall(name.lower())) == sorted(wanted)]
    if len(names) == 1 or len(fitting) == 1:
        return (names if len(names) == 1 else fitting)[0]
    raise CheckpointNotFound(
        f"{repo} holds several {kind}: {', '.join(sorted(names))}; get the one that you want "
        f"(`hf download {repo} --include 'NAME*' 'tokenizer*' --local-dir DIR`) and pass its path"
    )


def _beside(home: str, names: Collection[str]) -> tuple[str, ...]:
    """The small files in the folder, and at the top, where DeepMind has its tokenizer."""
    places = [_join(place, name) for place in dict.fromkeys((home, "")) for name in SMALL]
    return tuple(place for place in places if place in names)


def _others(names: Collection[str], chosen: list[str]) -> str:
    kinds = (".safetensors", ".bin", ".gguf", ".pt", ".h5", ".msgpack", ".npz")
    left = {PurePosixPath(name).suffix for name in names if name not in chosen} & set(kinds)
    left |= {"Orbax"} if any(_leaf(name) in _ORBAX[:3] for name in names) else set()
    return f" (left alone: {', '.join(sorted(left))})" if left else ""


def _never(name: str) -> bool:
    return name.endswith((".bin", ".gguf", ".md", ".gitattributes", ".pdf"))


def _files(count: int) -> str:
    return f"{count} file{'s' if count != 1 else ''}"


def _folder(name: str) -> str:
    parent = str(PurePosixPath(name).parent)
    return "" if parent == "." else parent


def _leaf(name: str) -> str:
    return PurePosixPath(name).name


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
