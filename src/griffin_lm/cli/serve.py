"""`griffin serve`: a model behind OpenAI's interface."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import MissingExtra
from . import common
from .common import LoadOptions


def serve(
    model: common.Model,
    host: Annotated[
        str, typer.Option(help="where to listen; beyond this machine only with a key")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            envvar="GRIFFIN_API_KEY",
            help="who may call; may be repeated. Sessions and caches are apart for each key",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="further keys, one a line")
    ] = None,
    max_sessions: Annotated[
        int, typer.Option(min=1, help="requests served at once; their memory is taken at the start")
    ] = 8,
    max_queue: Annotated[int, typer.Option(min=0, help="requests that may wait besides")] = 64,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="where sessions and responses lie; several servers may share it. "
            "Without it they go when the server does",
        ),
    ] = None,
    cache_mb: Annotated[
        int, typer.Option(min=0, help="megabytes for states at beginnings of prompts")
    ] = 256,
    max_tokens: Annotated[int, typer.Option(min=1, help="that one request may generate")] = 8192,
    drain: Annotated[
        float, typer.Option(min=0, help="seconds that requests get to end when it is stopped")
    ] = 30.0,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="the model's name in requests; else MODEL")
    ] = None,
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
    """Serve a model: OpenAI's completions, chat and responses, and sessions of any length.

    Any OpenAI client works with base_url http://HOST:PORT/v1. Requests are batched as they come; a
    request's answer does not depend on which others there are. On SIGTERM or Ctrl-C requests
    under way are finished first. One line of JSON a request goes to standard error.
    """
    try:
        from ..server.run import serve as run
        from ..server.settings import Settings, read_keys
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "fastapi", "serve", "griffin serve") from error
    keys = [*(api_key or ()), *(read_keys(api_key_file) if api_key_file else ())]
    settings = Settings(
        host=host,
        port=port,
        api_keys=tuple(dict.fromkeys(keys)),
        max_sessions=max_sessions,
        max_queue=max_queue,
        state_dir=state_dir,
        cache_bytes=cache_mb << 20,
        max_tokens=max_tokens,
        drain=drain,
    )
    lm = common.load(
        model,
        LoadOptions(device, dtype, quantize, kernels, config, tokenizer, offline, adapter, cache),
    )
    row = lm.model.empty_state(1).nbytes
    print(
        f"serving {name or model} on http://{host}:{port}/v1: {max_sessions} at once, "
        f"{row / 1e6:.1f} MB a sequence",
        file=sys.stderr,
    )
    if run(lm, name or model, settings):
        sys.exit(130)
