"""Turn templates: how a conversation is written for a model.

Markers (`<start_of_turn>`, `<user>`, ...) are single ids. `encode_turns` makes them only where the
template stands, so that nothing inside a user's text can open or close a turn.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from griffin_lm.errors import InputError

MARKERS = (
    # Gemma, RecurrentGemma
    "<start_of_turn>",
    "<end_of_turn>",
    # fledgling
    "<user>",
    "<model>",
    "<end>",
    "<note>",
    "</note>",
    # Llama 3
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    # ChatML
    "<|im_start|>",
    "<|im_end|>",
)
"""Pieces that are markers where a vocabulary has them as symbols of their own, not as learned text:
plain text never produces them, and they give no text."""

_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
END_MARKERS = ("<end_of_turn>", "<end>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>")
"""Markers that end the model's turn; generation stops at them as at EOS."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of a conversation: who speaks, and the text. A note stands between the turns."""

    role: Literal["user", "model", "note"]
    text: str


@dataclass(frozen=True, kw_only=True)
class TurnTemplate:
    """The strings around the turns; markers among them become single ids.

    stop           strings that end the model's turn where the vocabulary has no marker for it
    line_starts    words that open a turn where a line begins with them, in a template without
                   markers: inside a text such a line gets a space in front
    note           what stands around a note, if the model was taught any
    files_in_turn  whether a long text to be asked about stands inside the user's turn; else it
                   stands before it, as plain text
    """

    name: str
    user_open: str
    user_close: str
    model_open: str
    model_close: str
    stop: tuple[str, ...] = ()
    line_starts: tuple[str, ...] = ()
    note: tuple[str, str] | None = None
    files_in_turn: bool = True

    def wrap(self, turn: Turn) -> tuple[str, str, str]:
        """Returns (opening, text, closing) of one turn; InputError for an unknown role."""
        text = self.guard(turn.text)
        if turn.role == "user":
            return self.user_open, text, self.user_close
        if turn.role == "model":
            return self.model_open, text, self.model_close
        if turn.role == "note" and self.note is not None:
            return self.note[0], text, self.note[1]
        raise InputError(
            f"a turn has the role {turn.role!r}; the {self.name} template knows 'user' and 'model' "
            "(put a system text at the head of the first user turn)"
        )

    def guard(self, text: str) -> str:
        """Returns a text in which no line opens a turn."""
        if not self.line_starts:
            return text
        words = "|".join(map(re.escape, self.line_starts))
        return re.sub(rf"([{_LINE_ENDS}])(?={words})", r"\1 ", text)

    def jinja(self) -> str:
        """Returns the template as transformers' `chat_template` writes one."""
        say = {
            name: json.dumps(text, ensure_ascii=False)
            for name, text in (
                ("user_open", self.user_open),
                ("user_close", self.user_close),
                ("model_open", self.model_open),
                ("model_close", self.model_close),
            )
        }
        return (
            "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
            f"{{{{ {say['user_open']} + message['content'] + {say['user_close']} }}}}"
            "{% elif message['role'] in ('assistant', 'model') %}"
            f"{{{{ {say['model_open']} + message['content'] + {say['model_close']} }}}}"
            "{% else %}{{ raise_exception('this model has no ' + message['role'] + ' role') }}"
            "{% endif %}{% endfor %}{% if add_generation_prompt %}"
            f"{{{{ {say['model_open']} }}}}{{% endif %}}"
        )

    def render(self, turns: Sequence[Turn], open_model: bool = True) -> str:
        """Returns the conversation as one string, to look at or to compare.

        Do not encode this string where a turn's text is a stranger's: use `encode_turns`.
        """
        text = "".join(part for turn in turns for part in self.wrap(turn))
        return text + self.model_open if open_model else text


GEMMA = TurnTemplate(
    name="gemma",
    user_open="<start_of_turn>user\n",
    user_close="<end_of_turn>\n",
    model_open="<start_of_turn>model\n",
    model_close="<end_of_turn>\n",
)
"""Gemma and RecurrentGemma, instruction-tuned (their chat template, without a system role)."""

LLAMA_3 = TurnTemplate(
    name="llama-3",
    user_open="<|start_header_id|>user<|end_header_id|>\n\n",
    user_close="<|eot_id|>",
    model_open="<|start_header_id|>assistant<|end_header_id|>\n\n",
    model_close="<|eot_id|>",
)
"""Llama 3 to 3.3, instruction-tuned, without the system turn that 3.1's template puts in front."""

FLEDGLING = TurnTemplate(
    name="fledgling",
    user_open="<user>",
    user_close="",
    model_open="<model>",
    model_close="<end>",
    note=("<note>", "</note>"),
    files_in_turn=False,
)
"""The bundled model: in its training, prose stood between note and question, outside turns."""

PLAIN = TurnTemplate(
    name="plain",
    user_open="User: ",
    user_close="\n\n",
    model_open="Assistant:",
    model_close="\n\n",
    stop=("\n\nUser:", "\nUser:", "\n\nAssistant:", "\nAssistant:"),
    line_starts=("User:", "Assistant:"),
)
"""For base models: ordinary words, no markers. The model's text begins with its own space."""


@runtime_checkable
class Encoder(Protocol):
    """What this file needs of a tokenizer."""

    def encode(
        self, text: str, bos: bool = True, *, markers: bool = False, continues: bool = False
    ) -> list[int]:
        """The ids of a text."""
        ...

    def special_id(self, piece: str) -> int | None:
        """The id of a special piece, or None."""
        ...

    def split_markers(self, text: str) -> list[str | int]:
        """Stretches of text, and the ids of the markers between them."""
        ...


def template_of(tokenizer: Encoder) -> TurnTemplate | None:
    """Returns the template whose markers the vocabulary has, or None.

    A base Gemma or Llama has the markers too: whether the model learned them, only its name tells.
    """
    if tokenizer.special_id("<start_of_turn>") is not None:
        return GEMMA if tokenizer.special_id("<end_of_turn>") is not None else None
    marks = {
        LLAMA_3: ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        FLEDGLING: ("<user>", "<model>", "<end>"),
    }
    for template, names in marks.items():
        if all(tokenizer.special_id(name) is not None for name in names):
            return template
    return None


def encode_turns(
    tokenizer: Encoder,
    template: TurnTemplate,
    turns: Sequence[Turn],
    *,
    bos: bool = True,
    open_model: bool = True,
    continues: bool = False,
    close: bool = True,
) -> list[int]:
    """Returns the ids of a conversation, ready for the model's turn where `open_model`.

    Markers come from the template alone. Each turn is encoded by itself, and text between two
    markers in one go, so the ids of a conversation are those of its turns, one after the other:
    a state can go on from any of them. They equal those of the rendered conversation too, unless
    a text holds a marker's name or, without markers, a piece of the vocabulary spans two turns.

    Args:
        tokenizer: the model's tokenizer.
        template: how turns are written.
        turns: the conversation, oldest first.
        bos: begin with BOS where the vocabulary has one.
        open_model: end with the opening of a model turn.
        continues: the ids follow earlier ones (no dummy prefix).
        close: the last turn is over; else the ids end with its text.

    """
    ids = tokenizer.encode("", bos)
    for number, turn in enumerate(turns, 1):
        before, text, after = template.wrap(turn)
        after = after if close or number < len(turns) else ""
        parts = [*tokenizer.split_markers(before), text, *tokenizer.split_markers(after)]
        ids += encode_parts(tokenizer, parts, bos=False, continues=continues)
        continues = True
    if open_model:
        parts = tokenizer.split_markers(template.model_open)
        ids += encode_parts(tokenizer, parts, bos=False, continues=continues)
    return ids


def encode_parts(
    tokenizer: Encoder, parts: Sequence[str | int], *, bos: bool, continues: bool
) -> list[int]:
    """Returns the ids of texts and marker ids in a row; neighbouring texts are encoded as one."""
    ids = tokenizer.encode("", bos)
    pending = ""
    for part in (*parts, None):
        if isinstance(part, str):
            pending += part
            continue
        if pending:
            ids += tokenizer.encode(pending, bos=False, continues=continues)
        if part is not None:
            ids.append(part)
        continues, pending = True, ""
    return ids


def markers_first(opening: list[str | int]) -> tuple[list[str | int], str]:
    """A turn's opening up to its last marker, and the words after it."""
    last = max((i for i, part in enumerate(opening) if isinstance(part, int)), default=-1)
    return opening[: last + 1], "".join(str(part) for part in opening[last + 1 :])
