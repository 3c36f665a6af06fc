"""`griffin generate`: continues a prompt."""

import sys
import time
from typing import Annotated

import typer

from . import common
from .common import LoadOptions, Meter

Prompt = Annotated[
    str, typer.Argument(help='the text to continue; "-" reads standard input as it stands')
]


def generate(
    model: common.Model,
    prompt: Prompt,
    max_new_tokens: Annotated[int, typer.Option(help="at most so many tokens")] = 128,
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
    markers: Annotated[
        bool, typer.Option("--markers", help="turn markers in the prompt become their ids")
    ] = False,
    state: common.StateIn = None,
    save_state: common.StateOut = None,
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
    """Continue a prompt: the text comes on standard output as it is generated.

    With --state an empty prompt ("") goes on as if never interrupted. Ctrl-C keeps what came so far
    in the files named.
    """
    text = common.text_of(prompt)
    lm = common.load(
        model,
        LoadOptions(device, dtype, quantize, kernels, config, tokenizer, offline, adapter, cache),
    )
    stream = lm.stream(
        text,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop or (),
        logprobs=json is not None,
        state=common.load_state(state, lm),
        markers=markers,
    )
    begun = time.perf_counter()
    with Meter("reading the prompt:", "tokens") as meter:
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
        out.state.save(save_state)
    figures = {
        "text": out.text,
        "tokens": out.tokens,
        "logprobs": out.logprobs,
        "finish_reason": out.finish_reason,
        "state_tokens": int(out.state.tokens),
        "state_bytes": out.state.nbytes,
        "prompt_seconds": read - begun,
        "generate_seconds": time.perf_counter() - read,
    }
    common.write_json(json, figures)
    if interrupted:
        sys.exit(130)
