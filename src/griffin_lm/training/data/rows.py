"""Rows of a .jsonl file: plain text, conversations, prompts with completions; to ids and a mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import DataError
from ...text.chat import PLAIN, Turn, TurnTemplate, encode_parts, encode_turns
from ...text.tokenizer import Tokenizer

ROLES = {"user": "user", "human": "user", "assistant": "model", "model": "model"}
KNOWN_ROWS = (
    'a row is an object with "text", with "messages" or "turns", or with "prompt" and "completion"'
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row, read. Either `turns`, or `text` with what comes before it in `prompt`."""

    text: str = ""
    prompt: str | None = None
    turns: tuple[Turn, ...] = ()


class Example(NamedTuple):
    """A row as ids; `answer[i]`: the loss counts the prediction of ids[i]."""

    ids: list[int]
    answer: list[bool]


def parse_row(value: object) -> Row:
    """Reads one JSON value of a .jsonl file.

    A system message is put at the head of the first user turn, since no template here has a turn
    for it. Raises DataError that says what is wrong; the caller adds file and line.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"not a JSON object but {type(value).__name__}; {KNOWN_ROWS}")
    row: Mapping[str, Any] = value
    for name in ("messages", "turns"):
        if name in row:
            return Row(turns=_turns(row[name], name))
    if "prompt" in row and "completion" in row:
        return Row(prompt=_string(row, "prompt"), text=_string(row, "completion"))
    if "text" in row:
        return Row(text=_string(row, "text"))
    raise DataError(f"has {_names(row)}; {KNOWN_ROWS}")


def encode_row(row: Row, tokenizer: Tokenizer, template: TurnTemplate | None = None) -> Example:
    """The ids of a row with BOS, and which of them are answers.

    Answers are the model's turns up to the id that ends a turn, and completions with EOS; of plain
    text, every id but BOS. What opens a model turn, and a prompt, are encoded apart from the answer
    that follows, as when the model is asked.

    Args:
        row: of `parse_row`.
        tokenizer: the model's.
        template: how turns are written; None: the vocabulary's own, or else PLAIN.

    Raises:
        InputError: a text that is no valid Unicode.

    """
    example = Example(tokenizer.encode(""), [False] * len(tokenizer.encode("")))

    def add(ids: Sequence[int], answer: bool) -> None:
        example.ids.extend(ids)
        example.answer.extend([answer] * len(ids))

    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    if row.prompt is not None:
        add(tokenizer.encode(row.prompt, bos=False), False)
        continues = bool(row.prompt)
        add(tokenizer.encode(row.text, bos=False, continues=continues) + end, True)
    elif not row.turns:
        add(tokenizer.encode(row.text, bos=False), True)
    template = template or tokenizer.turn or PLAIN
    for place, turn in enumerate(row.turns):
        continues = place > 0
        if turn.role != "model":
            add(_turn(tokenizer, template, [turn], continues), False)
            continue
        add(_turn(tokenizer, template, [], continues), False)
        _, text, after = template.wrap(turn)
        parts = [text, *tokenizer.split_markers(after)]
        ids = encode_parts(tokenizer, parts, bos=False, continues=True)
        stops = [at for at, token in enumerate(ids) if token in tokenizer.stop_ids]
        last = stops[0] + 1 if stops else len(ids)
        add(ids[:last], True)
        add(ids[last:], False)
    return example


def require_answer(row: Row) -> None:
    """Raises DataError for a row that has nothing to learn an answer from."""
    answers = [turn.text for turn in row.turns if turn.role == "model"] if row.turns else [row.text]
    if not any(answer.strip() for answer in answers):
        what = "no model turn with text" if row.turns else "an empty completion or text"
        raise DataError(f"has {what}: there is no answer to learn")


def _turn(
    tokenizer: Tokenizer, template: TurnTemplate, turns: Sequence[Turn], continues: bool
) -> list[int]:
    """The ids of whole turns, or of the opening of a model turn where there are none."""
    return encode_turns(
        tokenizer, template, turns, bos=False, open_model=not turns, continues=continues
    )


def _turns(value: object, name: str) -> tuple[Turn, ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f'"{name}" is not a list of turns with a role and a text')
    turns: list[Turn] = []
    system = ""
    each: Any
    for place, each in enumerate(value):
        where = f'"{name}"[{place}]'
        if not isinstance(each, dict):
            raise DataError(f"{where} is not an object with a role and a text")
        turn: dict[str, Any] = each
        role = turn.get("role")
        key = next((key for key in ("content", "text") if key in turn), None)
        if key is None:
            raise DataError(f'{where} has no "content" and no "text"')
        text = _string(turn, key, f"{where} ")
        if role == "system" and not turns:
            system += text + "\n\n"
        elif role == "note":
            turns.append(Turn(role="note", text=text))
        elif role in ROLES:
            kind = ROLES[role]
            if kind == "user":
                turns.append(Turn(role="user", text=system + text))
                system = ""
            elif system:
                raise DataError(f"{where}: a model turn follows the system text; put a user turn")
            else:
                turns.append(Turn(role="model", text=text))
        else:
            known = ", ".join(ROLES)
            raise DataError(f"{where} has the role {role!r}; known are {known}, system at the head")
    if not turns:
        raise DataError(f'"{name}" has a system text and no turns')
    return tuple(turns)


def _string(row: Mapping[str, Any], name: str, where: str = "") -> str:
    if not isinstance(row[name], str):
        raise DataError(f'{where}"{name}" is {type(row[name]).__name__}, where a string should be')
    return row[name]


def _names(row: Mapping[str, Any]) -> str:
    return (
        "only " + ", ".join(f'"{str(name)[:40]}"' for name in list(row)[:8]) if row else "no keys"
    )
