"""From the messages of a request to the ids of a conversation, and the places marked in it."""

from collections.abc import Sequence

from ..errors import InputError
from ..text import Turn, encode_turns
from .protocol import InputItem, Message
from .service import Service

MOST_BREAKPOINTS = 80  # as OpenAI has it

Messages = Sequence[Message | InputItem]


def prompt_of(
    service: Service, messages: Messages, system: str = ""
) -> tuple[list[int], list[int]]:
    """(ids, marks) of a conversation that nothing precedes, up to where the model is to speak.

    marks: how many of the ids stand before each `prompt_cache_breakpoint`. The ids are those of the
    same conversation without them: where a token reaches over a breakpoint, its mark is in front of
    it. Raises `InputError` for more breakpoints than are taken.
    """
    tokenizer, template = service.lm.tokenizer, service.template
    ids = encode_turns(tokenizer, template, turns_of(messages, system))
    marks: list[int] = []
    for beginning in _beginnings(messages):
        turns = turns_of(beginning, system)
        head = encode_turns(tokenizer, template, turns, open_model=False, close=False)
        pairs = enumerate(zip(head, ids, strict=False))
        marks.append(next((at for at, (mine, all_) in pairs if mine != all_), len(head)))
    return service.check_prompt(ids), marks


def _beginnings(messages: Messages) -> list[Messages]:
    """The conversation up to each part that a breakpoint follows."""
    found: list[Messages] = []
    for at, message in enumerate(messages):
        parts = [] if isinstance(message.content, str) else message.content
        for end, part in enumerate(parts, 1):
            if part.prompt_cache_breakpoint is not None:
                cut = message.model_copy(update={"content": parts[:end]})
                found.append([*messages[:at], cut])
    if len(found) > MOST_BREAKPOINTS:
        raise InputError(f"{len(found)} breakpoints are too many; mark at most {MOST_BREAKPOINTS}")
    return found


def turns_of(messages: Messages, system: str = "", *, must_ask: bool = True) -> list[Turn]:
    """The turns of a conversation; system texts stand at the head of the next user turn."""
    turns: list[Turn] = []
    head = [system] if system else []
    for message in messages:
        text = text_of(message)
        if message.role in ("system", "developer"):
            head.append(text)
        elif message.role == "user":
            turns.append(Turn(role="user", text="\n\n".join([*head, text])))
            head = []
        else:
            turns.append(Turn(role="model", text=text))
    if head:
        turns.append(Turn(role="user", text="\n\n".join(head)))
    if must_ask and not turns:
        raise InputError("there is nothing to answer: send a message of the user")
    return turns


def text_of(message: Message | InputItem) -> str:
    """The text of a message."""
    content = message.content
    return content if isinstance(content, str) else "".join(part.text for part in content)
