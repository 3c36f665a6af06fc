"""int4 weights that know what they will be multiplied with, by GPTQ (ops/quantized_linear).

The model reads some text. Before a residual block reads, it shows what its matrices meet; they are
rounded; then it reads with what they have become, so that the next block is fitted to inputs such
as it will have. A matrix that is embedding and head is rounded before them all, for both its uses.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from ..layers.linear import Linear
from ..layers.quantized import QuantizedMatrix, has_matrix, matrices, replace_weight
from ..models import Griffin
from ..shapes import Tokens
from ..text import Tokenizer
from .text_source import BLOCK

ROWS, LENGTH = 32, 1024
"""Tokens that are read: rows, and of each so many."""

Progress = Callable[[str, int, int], None]


@torch.no_grad()
def calibrate(
    model: Griffin, tokens: Tokens, progress: Progress = lambda what, done, total: None
) -> None:
    """Rounds the model's matrices to int4 where they stand, fitted to what they meet in `tokens`.

    tokens: (B, T), texts such as the model is for. Matrices that multiply nothing but look rows up
    are rounded to nearest. progress: (what, done, in all), in blocks. Memory: activations of all
    tokens in one block, and the second moments of its inputs. Raises InputError for a model that is
    rounded already, or no tokens.
    """
    if matrices(model):
        raise InputError("this model is rounded already: start from what it was made of")
    if tokens.numel() == 0:
        raise InputError("there is no text to calibrate on")
    source, done = model.origin.model(), 0

    def before(block: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal done
        moments: dict[Linear, Tensor] = {}
        with _shown(block, moments):
            block.forward(*args)  # called, it would come here again
        for linear, moment in moments.items():
            _round(linear, moment)
        done += 1
        progress("calibrating", done, len(model.blocks))

    if not has_matrix(model.head):  # it is the embedding's
        _round(model.embed, _both_uses(_moment(model.hidden(tokens)[0])))
    hooks = [block.register_forward_pre_hook(before) for block in model.blocks]
    try:
        hidden, _ = model.hidden(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    if has_matrix(model.head):
        _round(model.head, _moment(hidden))
    for module in list(model.modules()):
        if has_matrix(module):  # that met nothing
            _round(module, None)
    model.origin.set_model(source)


@contextmanager
def _shown(block: nn.Module, moments: dict[Linear, Tensor]) -> Generator[None]:
    """While it lasts, the second moment of what each linear map of the block is called with."""
    latest: tuple[Tensor, Tensor] | None = None  # maps of one input share its moment

    def look(linear: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal latest
        assert isinstance(linear, Linear)
        if latest is None or latest[0] is not args[0]:
            latest = args[0], _moment(args[0])
        moments[linear] = latest[1] + moments[linear] if linear in moments else latest[1]

    linears = [module for module in block.modules() if isinstance(module, Linear)]
    hooks = [linear.register_forward_pre_hook(look) for linear in linears if has_matrix(linear)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _moment(x: Float[Tensor, "*B K"]) -> Float[Tensor, "K K"]:
    """X^T X in fp32, or x's wider dtype; a few thousand rows at a time."""
    flat = x.reshape(-1, x.shape[-1])
    wide = torch.promote_types(x.dtype, torch.float32)
    moment = torch.zeros(flat.shape[1], flat.shape[1], dtype=wide, device=x.device)
    for some in flat.split(4096):
        some = some.to(wide)
        moment.addmm_(some.T, some)
    return moment


def _both_uses(moment: Float[Tensor, "W W"]) -> Float[Tensor, "W W"]:
    """Of a head's inputs, and as much of the identity: a row that is looked up is off as it is."""
    return moment / moment.diagonal().mean() + torch.eye(len(moment), device=moment.device)


def _round(module: nn.Module, moment: Tensor | None) -> None:
    weight = module._parameters["weight"]  # pyright: ignore[reportPrivateUsage]  # which has_matrix saw
    assert weight is not None
    replace_weight(module, QuantizedMatrix.of(weight, "int4", moment=moment))


@torch.no_grad()
def own_text(
    model: Griffin, tokenizer: Tokenizer, seed: int = 0, rows: int = ROWS, length: int = LENGTH
) -> Tokens:
    """Texts that the model writes itself, (rows, length): no other data is needed.

    Drawn from its own distribution, at temperature 1, after BOS (or where a vocabulary has none, a
    token by chance); no row ends. On a CPU the same for a seed.
    """
    random = torch.Generator().manual_seed(seed)
    device = model.embed.weight.device
    first = tokenizer.bos_id
    ids = torch.randint(model.config.vocab, (rows, 1), generator=random)
    ids = ids if first is None else torch.full_like(ids, first)
    texts, state = [ids], model.empty_state(rows)
    stops = list(tokenizer.stop_ids)
    for _ in range(length - 1):
        logits, state = model(ids.to(device), state=state, logits="last", donate=True)
        logits = logits.float().cpu()
        logits[:, stops] = -torch.inf
        ids = torch.multinomial(logits.softmax(1), 1, generator=random)
        texts.append(ids)
    return torch.cat(texts, 1).to(device)


def text_of(file: Path, tokenizer: Tokenizer, rows: int = ROWS, length: int = LENGTH) -> Tokens:
    """The beginning of a UTF-8 text in rows of `length` tokens, as it fills them, `rows` at most.

    Each begins with BOS where the vocabulary has one. Raises InputError for a text that fills none.
    """
    try:
        with open(file, encoding="utf-8", errors="replace", newline="") as source:
            ids = list(islice(_ids(source, tokenizer), rows * length))
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}") from error
    first = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    own = length - len(first)
    texts = [first + ids[at : at + own] for at in range(0, len(ids) - own + 1, own)][:rows]
    if not texts:
        raise InputError(f"{file} has {len(ids):,} tokens, and {own:,} are needed at least")
    return torch.tensor(texts)


def _ids(source: Any, tokenizer: Tokenizer) -> Iterator[int]:
    while piece := source.read(BLOCK):
        yield from tokenizer.encode(piece, bos=False, continues=True)
