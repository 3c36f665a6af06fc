"""Whole models on the GPU against the same on the CPU, and against themselves in other pieces."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...models import Griffin, build
from ...ops.attention import windowed_attention
from ...ops.backend import prefer
from ...ops.rg_lru import rg_lru
from ...training.blocks import prepare_blocks
from .kernel_checks import Outcome

MODELS = ("tiny-griffin", "tiny-hawk")
EXACT = 1e-5  # fp32, other shapes of the same products
OTHER_DEVICE = 2e-5  # fp32, other kernels
HALF = 0.25  # bf16 against fp32, on logits of size 3 or so


def text(rows: int, length: int, seed: int = 0) -> Tensor:
    """Random tokens, on the CPU."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 96, (rows, length), generator=random)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference; inf where something is not finite."""
    error = (one.detach().cpu().double() - other.detach().cpu().double()).abs().max()
    return float(error) if bool(error.isfinite()) else float("inf")


def _pair(name: str) -> tuple[Griffin, Griffin]:
    """The same weights on the CPU and on the GPU, in fp32."""
    return build(name, seed=5), build(name, seed=5, device="cuda")


def as_on_the_cpu(name: str) -> float:
    """Logits of both devices, more tokens than the window has."""
    here, there = _pair(name)
    tokens = text(3, 50)
    with torch.no_grad():
        return apart(_logits(here, tokens), _logits(there, tokens.cuda()))


def _logits(model: Griffin, tokens: Tensor, **options: Tensor) -> Tensor:
    logits, _ = model(tokens, **options)
    assert isinstance(logits, Tensor)
    return logits


def gradients_as_on_the_cpu(name: str) -> float:
    """The largest difference of a gradient, relative to that parameter's largest."""
    here, there = _pair(name)
    tokens = text(2, 40)
    for model, given in ((here, tokens), (there, tokens.cuda())):
        _logits(model, given).logsumexp(-1).mean().backward()
    errors: list[float] = []
    for mine, theirs in zip(here.parameters(), there.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        errors.append(apart(mine.grad, theirs.grad) / max(float(mine.grad.abs().max()), 1e-6))
    return max(errors)


def what_is_computed_again_is_what_was_kept(name: str) -> float:
    """Gradients with recompute="selective" against those without, relative to each's largest."""
    found: list[list[Tensor]] = []
    for recompute in ("none", "selective"):
        _, model = _pair(name)
        prepare_blocks(model, compiled=False, recompute=recompute)
        _logits(model, text(2, 40).cuda()).logsumexp(-1).mean().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    pairs = zip(*found, strict=True)
    return max(apart(a, b) / max(float(a.abs().max()), 1e-6) for a, b in pairs)


@torch.no_grad()
def chunks_are_the_whole(name: str) -> float:
    """Cut into 1, 7, 20 and the rest, the state handed on."""
    _, model = _pair(name)
    tokens = text(2, 60).cuda()
    state, pieces = None, list[Tensor]()
    for part in tokens.split([1, 7, 20, 32], dim=1):
        logits, state = model(part, state=state, donate=state is not None)
        assert isinstance(logits, Tensor)
        pieces.append(logits)
    return apart(torch.cat(pieces, 1), _logits(model, tokens))


@torch.no_grad()
def gaps_are_taken_out(name: str) -> float:
    """Invalid tokens anywhere: as if they were not there."""
    _, model = _pair(name)
    tokens = text(1, 40).cuda()
    valid = (torch.arange(40, device="cuda") % 3 != 1)[None]
    return apart(_logits(model, tokens, valid=valid)[valid], _logits(model, tokens[valid][None])[0])


@torch.no_grad()
def documents_stay_apart(name: str) -> float:
    """Two documents in a row: each as by itself."""
    _, model = _pair(name)
    tokens = text(1, 40).cuda()
    starts = torch.zeros_like(tokens, dtype=torch.bool)
    starts[0, 17] = True
    packed = _logits(model, tokens, starts=starts)
    return apart(packed[:, 17:], _logits(model, tokens[:, 17:]))


@torch.no_grad()
def bf16_is_near_fp32(name: str) -> float:
    """The same weights in bf16."""
    _, model = _pair(name)
    tokens = text(2, 40).cuda()
    exact = _logits(model, tokens)
    return apart(_logits(model.bfloat16(), tokens), exact)


@torch.no_grad()
def a_recorded_step_is_the_step(name: str) -> float:
    """Tokens that differ between replayed CUDA graphs and ordinary calls, in 40 steps, 3 rows."""
    from ...inference.decode_step import DecodeStep
    from ...inference.sampling import SamplingOptions

    _, model = _pair(name)
    prompt = text(3, 20).cuda()
    _, state = model(prompt, logits=None)
    step = DecodeStep(model, 4, SamplingOptions(), logprobs=False)
    step.load(state, None)
    fed, differ = [1, 2, 3], 0
    for _ in range(40):
        logits, state = model(torch.tensor(fed, device="cuda")[:, None], state=state, logits="last")
        assert isinstance(logits, Tensor)
        tokens, _ = step.step(fed, [True] * 3, [])
        fed = logits.argmax(-1).tolist()
        differ += sum(a != b for a, b in zip(tokens, fed, strict=True))
    return float(differ)


def flex_gradients_are_those_of_masked_attention(_: str) -> float:
    """Documents, an unfilled ring, a window of 200 and 700 tokens, heads of 64, fp32."""
    torch.manual_seed(0)
    sizes = ((700, 4), (700, 1), (700, 1), (200, 1), (200, 1))
    tensors = [torch.randn(2, *size, 64, device="cuda") for size in sizes]
    read = torch.tensor([3, 1000], device="cuda")
    position = (torch.arange(700, device="cuda") % 333).expand(2, -1)
    found: list[list[Tensor]] = []
    for kernels in ("triton", "reference"):
        q, k, v = (tensor.clone().requires_grad_() for tensor in tensors[:3])
        with prefer(kernels):
            y = windowed_attention(q, k, v, tensors[3], tensors[4], read, position)
            found.append([y, *torch.autograd.grad(y.sin().sum(), (q, k, v))])
    return max(apart(a, b) / float(b.abs().max()) for a, b in zip(*found, strict=True))


def compiled_is_eager(_: str) -> float:
    """The RG-LRU and its gradient inside torch.compile, in one graph."""
    torch.manual_seed(0)
    x, r, i = (torch.randn(2, 100, 64, device="cuda", requires_grad=True) for _ in range(3))
    Lambda, h0 = torch.randn(64, device="cuda"), torch.randn(2, 64, device="cuda")
    starts = torch.rand(2, 100, device="cuda") < 0.1

    def run(x: Tensor, r: Tensor, i: Tensor) -> Tensor:
        return rg_lru(x * 2, r, i, Lambda, starts, h0).sin()

    found = [
        torch.autograd.grad(way(x, r, i).sum(), (x, r, i))
        for way in (run, torch.compile(run, fullgraph=True))
    ]
    return max(apart(a, b) for a, b in zip(*found, strict=True))


@torch.no_grad()
def more_than_two_thousand_million_numbers(_: str) -> float:
    """Offsets beyond 2^31: the last row of a large batch against that row alone."""
    rows, steps, width = 9, 100_000, 2560
    x = torch.randn(rows, steps, width, device="cuda", dtype=torch.bfloat16)
    Lambda, h0 = torch.zeros(width, device="cuda"), torch.zeros(rows, width, device="cuda")
    starts = torch.zeros(rows, steps, dtype=torch.bool, device="cuda")
    whole = rg_lru(x, x, x, Lambda, starts, h0)[-1:, -1000:].clone()
    last = x[-1:, -4096:]  # decays around 1/16 forget all before
    return apart(whole, rg_lru(last, last, last, Lambda, starts[:1, :4096], h0[:1])[:, -1000:])


OF_MODELS: tuple[tuple[Callable[[str], float], float], ...] = (
    (as_on_the_cpu, OTHER_DEVICE),
    (gradients_as_on_the_cpu, 1e-4),
    (what_is_computed_again_is_what_was_kept, EXACT),
    (chunks_are_the_whole, EXACT),
    (gaps_are_taken_out, EXACT),
    (documents_stay_apart, EXACT),
    (bf16_is_near_fp32, HALF),
    (a_recorded_step_is_the_step, 0.0),
)
ALONE: tuple[tuple[Callable[[str], float], float], ...] = (
    (compiled_is_eager, 1e-5),
    (flex_gradients_are_those_of_masked_attention, 1e-4),
    (more_than_two_thousand_million_numbers, 1e-5),
)


def checks() -> Iterator[Callable[[], Outcome]]:
    """All of them, each to be called: one that raises must not keep the others from running."""

    def one(check: Callable[[str], float], subject: str, allowed: float) -> Callable[[], Outcome]:
        name = check.__name__.replace("_", " ")
        return lambda: Outcome(name, subject, check(subject), allowed)

    for model in MODELS:
        for check, allowed in OF_MODELS:
            yield one(check, model, allowed)
    for check, allowed in ALONE:
        yield one(check, "", allowed)
