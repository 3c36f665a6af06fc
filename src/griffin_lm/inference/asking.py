"""A question to a state: asked on a fork, so that the state stays what it is."""

from pathlib import Path

from ..errors import InputError
from ..models import State
from ..text import Turn, encode_turns
from ..text.chat import encode_parts
from .bookmark import turn_of
from .generate import GenerateOptions, Generation
from .language_model import LanguageModel, Stream
from .reading import read_rows


def ask(
    lm: LanguageModel,
    question: str,
    state: State | Path,
    options: GenerateOptions | None = None,
    in_turn: bool | None = None,
) -> Stream:
    """Asks; the answer comes piece by piece, and `.output` once it has ended.

    An instruction-tuned model is asked in the user's turn, and answers in its own: in the turn that
    the state stands in (in_turn; None: as the note of a state file says), after an empty line, or
    else in a new one. A base model goes on with the question as plain text. `state` is not changed.

    Raises `InputError` for an empty question, or a state of several rows; `StateError` for another
    model's state.
    """
    if not question.strip():
        raise InputError("the question is empty; ask something")
    if in_turn is None:
        in_turn = isinstance(state, Path) and turn_of(state) == "user"
    if isinstance(state, Path):
        state = State.load(state, lm)
    if state.batch_size != 1:
        raise InputError(f"asks one row, but the state has {state.batch_size}; pass state[i]")
    ids = question_ids(lm, question, in_turn, int(state.tokens) == 0)
    run = Generation(
        lm.model, lm.tokenizer, [ids], options or GenerateOptions(), state, lm.stop_ids
    )
    return Stream(run)


def settled(lm: LanguageModel, stream: Stream) -> tuple[State, dict[str, str]]:
    """The state after question and answer, and its note: to be kept, and asked again.

    The model's turn is closed, where it is one.
    """
    out = stream.output
    template = lm.tokenizer.turn if lm.instruction_tuned else None
    if template is None:
        return out.state, {"kind": "ask", "turn": "none"}
    closing = lm.tokenizer.split_markers(template.model_close)
    ids = encode_parts(lm.tokenizer, closing, bos=False, continues=True)
    if out.tokens and out.tokens[-1] == ids[0]:
        ids = ids[1:]  # the model has written that itself
    state = out.state
    if ids and state.pending is not None:
        waiting = state.pending.tolist()
        bare = state.detach()
        bare.pending = None
        state = read_rows(lm.model, [[*waiting, *ids[:-1]]], bare).with_pending(ids[-1:])
    return state, {"kind": "ask", "template": template.name, "turn": "none"}


def question_ids(lm: LanguageModel, question: str, in_turn: bool, empty: bool) -> list[int]:
    """The ids of a question as `ask` puts it, after a state that stands in a user's turn or not."""
    tokenizer, template = lm.tokenizer, lm.tokenizer.turn
    if not lm.instruction_tuned or template is None:
        return tokenizer.encode(question, bos=empty, continues=not empty)
    if not in_turn:
        turns = [Turn(role="user", text=question)]
        return encode_turns(tokenizer, template, turns, bos=empty, continues=not empty)
    closing = tokenizer.split_markers(template.user_close)
    opening = tokenizer.split_markers(template.model_open)
    said = encode_parts(tokenizer, [f"\n\n{question}", *closing], bos=False, continues=True)
    return said + encode_parts(tokenizer, opening, bos=False, continues=True)
