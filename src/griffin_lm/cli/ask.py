"""`griffin ask`: a question to a state."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from . import common
from .common import LoadOptions, Meter


def ask(
    model: common.Model,
    question: Annotated[
        str, typer.Argument(help='the question; "-" reads standard input as it stands')
    ],
    state: Annotated[
        Path, typer.Option("--state", metavar="FILE", help="what is asked; it stays as it is")
    ],
    save_state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="keep the fork, with question and answer"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="at most so many tokens")] = 256,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="draw among the K likeliest")] = None,
    top_p: Annotated[float | None, typer.Option(help="among the fewest that reach P")] = None,
    min_p: Annotated[float | None, typer.Option(help="at least P times the likeliest")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="above 1: tokens of this call become less likely")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed draws the same text")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="end before this text; may be repeated")
    ] = None,
    json: common.JsonOut = None,
    device: common.Device = "auto",
    dtype: common.DType = "auto",
    quantize: common.Quantize = None,
    kernels: common.Kernels = "auto",
    config: common.Config = None,
    tokenizer: common.Tokenizer = None,
    offline: common.Offline = False,
    adapter: common.Adapter = None,
    cache: common.KeysAndValues = "auto",
) -> None:
    """Ask a state, such as `griffin read` saves; the answer comes as it is generated.

    The question goes to a throw-away fork: the state's file is not changed, however often it is
    asked. An instruction-tuned model answers in its own turn; where the state stands inside a
    user's turn, the question ends that turn. A base model was not taught to answer: it goes on with
    the question as plain text, so write one that an answer would follow ("The murderer was").
    """
    text = common.text_of(question)
    lm = common.load(
        model,
        LoadOptions(device, dtype, quantize, kernels, config, tokenizer, offline, adapter, cache),
    )
    from ..inference import GenerateOptions
    from ..inference import ask as ask_state
    from ..inference.asking import settled

    options = GenerateOptions(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop or (),
        logprobs=json is not None,
    )
    stream = ask_state(lm, text, state, options)
    begun = time.perf_counter()
    with Meter("reading the question:", "tokens") as meter:
        stream.begin(meter)
    read = time.perf_counter()
    with common.ctrl_c_noted() as interrupted:
        for piece in stream:
            print(piece, end="", flush=True)
            if interrupted:
                print(stream.cancel(), end="")
    print()
    out = stream.output
    if save_state is not None:
        fork, note = settled(lm, stream)
        fork.save(save_state, note=note)
    figures = {
        "answer": out.text,
        "tokens": out.tokens,
        "logprobs": out.logprobs,
        "finish_reason": out.finish_reason,
        "instruction_tuned": lm.instruction_tuned,
        "state_tokens": int(out.state.tokens),
        "state_bytes": out.state.nbytes,
        "question_seconds": read - begun,
        "answer_seconds": time.perf_counter() - read,
    }
    common.write_json(json, figures)
    if interrupted:
        sys.exit(130)
