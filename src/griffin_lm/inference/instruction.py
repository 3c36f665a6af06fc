"""Whether a checkpoint was taught to take turns, and at which ids it stops: read, and saved again.

What decides, the first that speaks: "instruction_tuned" in config.json (ours, any format may carry
it); a chat template beside the tokenizer; "-it" or "-instruct" in the name. The vocabulary does
not: Gemma's base models have the turn markers too, and never learned what they mean.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.files import read_json
from ..errors import CheckpointCorrupt
from ..shapes import JSON
from ..text import Tokenizer

TUNED, STOPS = "instruction_tuned", "stop_ids"  # keys of config.json
TEMPLATE_FILE = "chat_template.jinja"
_NAME = re.compile(r"(?:^|[-_.])(?:it|instruct)(?:$|[-_.@])", re.IGNORECASE)


def is_instruction_tuned(path: Path, name: str = "") -> bool:
    """Whether the checkpoint at a path, asked for by a name (an alias, a hub id), takes turns.

    Raises `CheckpointCorrupt` where a JSON file beside it is damaged.
    """
    folder = path if path.is_dir() else path.parent
    said = _read(folder / "config.json").get(TUNED)
    if isinstance(said, bool):
        return said
    template = _read(folder / "tokenizer_config.json").get("chat_template")
    if template or (folder / TEMPLATE_FILE).is_file():
        return True
    names = (path.name, folder.name, name.rstrip("/").rpartition("/")[2])
    return any(_NAME.search(each) is not None for each in names)


def read_stops(path: Path, vocab: int) -> tuple[int, ...]:
    """Ids at which the checkpoint says that generation ends: a list, a number, or nothing.

    Ours stand in config.json, transformers' in generation_config.json. Raises `CheckpointCorrupt`
    for what is no id of the vocabulary.
    """
    folder = path if path.is_dir() else path.parent
    found: list[int] = []
    for file, key in (("config.json", STOPS), ("generation_config.json", "eos_token_id")):
        value: Any = _read(folder / file).get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if any(type(token) is not int or not 0 <= token < vocab for token in ids):
            raise CheckpointCorrupt(
                f"{folder / file}: {key} is {value!r:.60}, which is no id, nor a list of ids, of "
                f"this vocabulary of {vocab}; correct it"
            )
        found += ids
    return tuple(dict.fromkeys(found))


def describe(instruction_tuned: bool, further_stops: tuple[int, ...]) -> JSON:
    """What config.json says of both; nothing for a base model that stops as its tokenizer does."""
    about: JSON = {TUNED: True} if instruction_tuned else {}
    return about | ({STOPS: list(further_stops)} if further_stops else {})


@dataclass(frozen=True)
class SavedVocabulary:
    """A tokenizer as a checkpoint keeps it: with all stop ids, and a chat template if asked for."""

    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]
    chat_template: bool = False

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text."""
        return self.tokenizer.bos_id

    @property
    def eos_id(self) -> int | None:
        """The id that ends a text."""
        return self.tokenizer.eos_id

    @property
    def pad_id(self) -> int | None:
        """The id that fills up batches."""
        return self.tokenizer.pad_id

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, and the template where none of them holds one."""
        self.tokenizer.save(folder)
        if not self.chat_template or self.tokenizer.turn is None:
            return
        if not _read(folder / "tokenizer_config.json").get("chat_template"):
            text = self.tokenizer.turn.jinja()
            (folder / TEMPLATE_FILE).write_text(text, encoding="utf-8")


def _read(path: Path) -> JSON:
    """A JSON object, {} where there is no such file."""
    return read_json(path) if path.is_file() else {}
