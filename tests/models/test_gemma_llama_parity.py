"""Gemma and Llama against transformers' own classes, in fp32, on small random models.

Odd shapes and lengths; whole, in chunks and step by step; the loss and every gradient of a training
step. Their weights are carried over by the table of names below.
"""

import math
import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import griffin_lm as griffin
from griffin_lm.mixers import GlobalAttention
from griffin_lm.models import Griffin, ModelConfig
from tests.parity import record_parity

# the dev extra brings it; the package itself must pass its tests without
transformers = pytest.importorskip("transformers")

TOLERANCE, GRADIENT = 2e-5, 1e-4
VOCAB = 61
ORIGINAL = 48  # tokens of the context before it was stretched

LLAMA_3_1 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}


def llama(**settings: Any) -> tuple[str, dict[str, Any]]:
    """A Llama of four heads, 8 wide, unless told otherwise."""
    base = {"heads": 4, "kv_heads": 2, "head_dim": 8, "width": 32, "mlp": 44, "layers": 3}
    base |= {"theta": 500_000.0, "eps": 1e-5, "tied": False, "scaling": None}
    return "llama", base | settings


def gemma(**settings: Any) -> tuple[str, dict[str, Any]]:
    """A Gemma of four heads, 16 wide, sharing one key head, unless told otherwise."""
    base = {"heads": 4, "kv_heads": 1, "head_dim": 16, "width": 40, "mlp": 72, "layers": 3}
    base |= {"theta": 10_000.0, "eps": 1e-6, "tied": True, "scaling": None}
    return "gemma", base | settings


MODELS = {
    "Gemma, MQA as 2B": gemma(),
    "Gemma, MHA as 7B, heads wider than the model": gemma(kv_heads=4, head_dim=24),
    "Gemma, 256-wide heads": gemma(heads=2, head_dim=256, width=72, layers=2),
    "Llama 3, GQA": llama(),
    "Llama 3, tied": llama(tied=True, heads=3, kv_heads=1, width=27),
    "Llama 3, MHA": llama(kv_heads=4, head_dim=6),
    "Llama 3.1, scaled RoPE": llama(scaling=LLAMA_3_1),
    "Llama 3.1, 128-wide heads": llama(
        heads=4, kv_heads=2, head_dim=128, width=96, layers=2, scaling=LLAMA_3_1
    ),
    "Llama 3.2, scaled by 32, tied": llama(tied=True, scaling=LLAMA_3_1 | {"factor": 32.0}),
}


def our_config(kind: str, shape: dict[str, Any]) -> ModelConfig:
    """The configuration for our model."""
    scaling = shape["scaling"]
    scaled = {"rope_factor": scaling["factor"], "rope_context": ORIGINAL} if scaling else {}
    attention = GlobalAttention(
        heads=shape["heads"],
        head_dim=shape["head_dim"],
        kv_heads=shape["kv_heads"],
        rope_base=shape["theta"],
        **scaled,
    )
    family = griffin.PRESETS["tiny-gemma" if kind == "gemma" else "tiny-llama"].to_dict()
    return ModelConfig.from_dict(
        family
        | {"vocab": VOCAB, "width": shape["width"], "mlp_width": shape["mlp"]}
        | {"layers": shape["layers"], "tied": shape["tied"], "pattern": [attention.to_dict()]}
    )


def their_config(kind: str, shape: dict[str, Any]) -> Any:
    """The same model for transformers."""
    rope = {"rope_type": "default"} | (shape["scaling"] or {}) | {"rope_theta": shape["theta"]}
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": shape["width"],
        "intermediate_size": shape["mlp"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "head_dim": shape["head_dim"],
        "rms_norm_eps": shape["eps"],
        "rope_parameters": rope,
        "max_position_embeddings": 512,
        "tie_word_embeddings": shape["tied"],
        "pad_token_id": None,
        "attn_implementation": "eager",
    }
    kinds = {"gemma": transformers.GemmaConfig, "llama": transformers.LlamaConfig}
    return kinds[kind](**settings)


WORDS = (
    ("model.embed_tokens.weight", "embed.weight"),
    ("lm_head.weight", "head.weight"),
    ("model.norm.weight", "final_norm.scale"),
    ("model.layers", "layers"),
    ("post_attention_layernorm.weight", "mlp_norm.scale"),
    ("input_layernorm.weight", "mixer_norm.scale"),
    ("self_attn.o_proj", "mixer.out"),
    ("self_attn.", "mixer."),
    ("_proj.", "."),
)


def our_name(name: str) -> str:
    """Our name of one of their weights."""
    for theirs, ours in WORDS:
        name = name.replace(theirs, ours)
    return name


def ours_of(named: Any) -> dict[str, Tensor]:
    """Their tensors under our names; a tied head is their embedding, which stands there once."""
    return {our_name(name): tensor for name, tensor in named}


@cache
def pair(name: str) -> tuple[Griffin, Any]:
    """Our model and theirs with the same random weights, large enough to show."""
    kind, shape = MODELS[name]
    classes = {"gemma": transformers.GemmaForCausalLM, "llama": transformers.LlamaForCausalLM}
    theirs = classes[kind](their_config(kind, shape)).eval()
    random = torch.Generator().manual_seed(shape["layers"])
    with torch.no_grad():
        for key, weight in theirs.named_parameters():
            noise = torch.randn(weight.shape, generator=random)
            if weight.dim() == 1:
                weight.copy_(0.2 * noise + (0 if kind == "gemma" else 1))
            else:
                out = re.search(r"o_proj|down_proj", key)
                scale = math.sqrt(2 / shape["layers"]) if out else 1.0
                weight.copy_(noise * scale / math.sqrt(weight.shape[-1]))
    ours = Griffin(our_config(kind, shape))
    ours.load_state_dict(ours_of(theirs.named_parameters()), strict=True)
    return ours, theirs


def a_row(length: int, rows: int = 1) -> Tensor:
    """Random tokens (rows, length)."""
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def their_logits(theirs: Any, tokens: Tensor) -> Tensor:
    """Their logits, by one full forward pass."""
    return theirs(tokens, use_cache=False).logits


def off(mine: Tensor, exact: Tensor) -> float:
    """The largest difference."""
    return float((mine - exact).abs().max())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("length", (1, 2, 7, ORIGINAL + 1, 3 * ORIGINAL + 5))
@torch.no_grad()
def test_a_prompt_gives_transformers_logits(name: str, length: int) -> None:
    ours, theirs = pair(name)
    tokens = a_row(length, rows=2)
    error = off(ours(tokens)[0], their_logits(theirs, tokens))
    record_parity(f"transformers | {name} | prompt of {length}", error, TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_chunks_of_any_size_give_transformers_logits(name: str) -> None:
    ours, theirs = pair(name)
    tokens, state, outs, begin = a_row(103), None, [], 0
    for size in (1, 5, 0, 17, 2, 41, 1, 36):
        out, state = ours(tokens[:, begin : begin + size], state=state)
        outs.append(out)
        begin += size
    error = off(torch.cat(outs, 1), their_logits(theirs, tokens))
    record_parity(f"transformers | {name} | chunks of 1 to 41", error, TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_single_steps_give_the_logits_of_transformers_own_cached_steps(name: str) -> None:
    """Both of them a token a call, from a prompt to beyond the original context."""
    ours, theirs = pair(name)
    tokens = a_row(2 * ORIGINAL)
    _, state = ours(tokens[:, :9], logits=None)
    known = theirs(tokens[:, :9], use_cache=True).past_key_values
    error = 0.0
    for t in range(9, 2 * ORIGINAL):
        mine, state = ours(tokens[:, t : t + 1], state=state, logits="last", donate=True)
        exact = theirs(tokens[:, t : t + 1], past_key_values=known, use_cache=True)
        error = max(error, off(mine, exact.logits[:, -1]))
    record_parity(f"transformers | {name} | single steps", error, TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_and_every_gradient_of_a_training_step_are_transformers(name: str) -> None:
    ours, theirs = pair(name)
    tokens = a_row(37, rows=2)
    losses = []
    for model in (ours, theirs):
        model.zero_grad()
        logits = model(tokens)[0] if model is ours else model(tokens, use_cache=False).logits
        losses.append(cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))
        losses[-1].backward()
    record_parity(
        f"transformers | {name} | loss of a training step",
        abs(losses[0].item() - losses[1].item()),
        GRADIENT,
    )
    exact = ours_of((key, weight.grad) for key, weight in theirs.named_parameters())
    mine = {key: weight.grad for key, weight in ours.named_parameters()}
    assert set(mine) == set(exact)
    error = max(off(mine[key], exact[key]) for key in mine)
    assert all(gradient.abs().max() > 1e-4 for gradient in mine.values())
    record_parity(f"transformers | {name} | every gradient of a training step", error, GRADIENT)


@torch.no_grad()
def test_far_beyond_the_original_context_fp32_stays_with_float64() -> None:
    """Where angles in fp32 begin to drift (theirs are), ours are compared with our own model in
    float64; tests/layers/test_rope.py holds its angles to the written rule."""
    name = "Llama 3.2, scaled by 32, tied"
    ours, _ = pair(name)
    tokens = a_row(40 * ORIGINAL)
    wide = Griffin(ours.config, dtype=torch.float64)
    wide.load_state_dict({key: weight.double() for key, weight in ours.state_dict().items()})
    error = off(ours(tokens)[0], wide(tokens)[0])
    record_parity(f"float64 definition | {name} | prompt of {40 * ORIGINAL}", error, TOLERANCE)


PUBLISHED = {
    "gemma-2b": {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256}
    | {"hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 18},
    "gemma-7b": {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256}
    | {"hidden_size": 3072, "intermediate_size": 24_576, "num_hidden_layers": 28},
    "llama-3-8b": {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}
    | {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32},
    "llama-3.2-1b": {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}
    | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    | {"tie_word_embeddings": True},
    "llama-3.2-3b": {"num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": 128_256}
    | {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28}
    | {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_shapes_of_transformers_classes_at_full_size(name: str) -> None:
    kind = name.split("-")[0]
    config = {"gemma": transformers.GemmaConfig, "llama": transformers.LlamaConfig}[kind](
        **PUBLISHED[name]
    )
    classes = {"gemma": transformers.GemmaForCausalLM, "llama": transformers.LlamaForCausalLM}
    with torch.device("meta"):
        theirs = classes[kind](config)
    shapes = {key: tensor.shape for key, tensor in ours_of(theirs.named_parameters()).items()}
    ours = griffin.build(name, device="meta")
    assert {key: tensor.shape for key, tensor in ours.named_parameters()} == shapes
