"""Where the time of a model call goes, by kind of part; exclusive of the parts inside.

Watched parts are called one by one: what a half of a block saves as one call is not in it.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from torch import nn

from ...models import Griffin


@contextmanager
def profile(model: Griffin) -> Generator[dict[str, float]]:
    """Within, calls of the model add seconds to a dict: part -> seconds; "call" is the whole."""
    seconds: dict[str, float] = {}
    open_parts: list[list[float]] = []  # began, seconds of the parts inside
    hooks = []

    def enter(*_: object) -> None:
        open_parts.append([time.perf_counter(), 0.0])

    def leave(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            began, inside = open_parts.pop()
            took = time.perf_counter() - began
            seconds[name] = seconds.get(name, 0.0) + took - inside
            if open_parts:
                open_parts[-1][1] += took
            else:
                seconds["call"] = seconds.get("call", 0.0) + took

        return hook

    for path, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(leave(_part(path, module))))
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def _part(path: str, module: nn.Module) -> str:
    """A part's name: of its class, and for a linear map where it stands."""
    kind = type(module).__name__
    if not path:
        return "rest of the call"
    if kind == "Linear":
        return "linear: mlp" if ".mlp." in path else f"linear: {path.rsplit('.', 1)[-1]}"
    return kind
