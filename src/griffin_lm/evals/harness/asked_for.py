"""What lm-eval's requests ask for, in our words; knows nothing of lm-eval itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ...errors import InputError
from ...text.chat import Turn

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("top_k", "top_p", "min_p", "repetition_penalty", "seed")
# said by some tasks with the value that changes nothing
_NEUTRAL: dict[str, tuple[Any, ...]] = {"num_beams": (1, None), "num_return_sequences": (1, None)}
_ROLES: dict[str, Literal["user", "model"]] = {
    "user": "user",
    "assistant": "model",
    "model": "model",
}


def options_of(asked: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Arguments of `LanguageModel.generate` from a task's generation_kwargs.

    most: tokens where the task does not say. Greedy unless do_sample, or a temperature without it.
    Raises InputError for an option that generation here does not have.
    """
    left = dict(asked)
    until = left.pop("until", None)
    stops: list[str] = [until] if isinstance(until, str) else list(until or ())
    lengths = [left.pop(name) for name in _LENGTHS if left.get(name) is not None]
    temperature = left.pop("temperature", None)
    sampled = left.pop("do_sample", None)
    if sampled is None:
        sampled = bool(temperature)
    options: dict[str, Any] = {"max_new_tokens": int(lengths[0] if lengths else most)}
    options["temperature"] = float(1.0 if temperature is None else temperature) if sampled else 0.0
    for name in _SAMPLING:
        value = left.pop(name, None)
        if sampled and value is not None:
            options[name] = value
    for name, value in left.items():
        if name not in _LENGTHS and value not in _NEUTRAL.get(name, ()):
            raise InputError(
                f"a task asks for the generation option {name}={value!r}, which there is not; "
                f"known: until, do_sample, temperature, {', '.join((*_SAMPLING, *_LENGTHS))}"
            )
    return options | {"stop": [stop for stop in stops if stop]}


def turns_of(messages: Sequence[Mapping[str, str]]) -> list[Turn]:
    """A conversation as turns; a system text goes in front of the first user's.

    Raises InputError for a role that is none.
    """
    turns: list[Turn] = []
    system = ""
    for message in messages:
        role, text = message["role"], message["content"]
        if role == "system":
            system += f"{text}\n\n"
            continue
        if role not in _ROLES:
            raise InputError(f"a message has the role {role!r}; known: system, {', '.join(_ROLES)}")
        if system and _ROLES[role] == "user":
            text, system = system + text, ""
        turns.append(Turn(role=_ROLES[role], text=text))
    return turns
