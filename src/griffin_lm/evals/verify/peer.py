"""The largest difference to transformers' RecurrentGemma on the same weights.

Its window counts the token itself, so it is given ours + 1. Compared is one row, whole, without a
cache: its padding, packed documents and continued caches are wrong. Where the checkpoint is a
Hugging Face folder, transformers reads it by itself, after our model was freed; else it is given
our tensors, in our memory, by a table of names that is not the one of `checkpoints`.
"""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...mixers import RGLRU, LocalAttention
from ...models import Griffin, ModelConfig
from .lines import Line, left_out, within
from .subject import ROUNDINGS, Subject, difference

OLDEST = 5  # transformers 4 applies no window without a cache
WORDS = (  # ours -> theirs, tried in this order
    ("embed.weight", "model.embed_tokens.weight"),
    ("final_norm.scale", "model.final_norm.weight"),
    ("layers.", "model.layers."),
    ("mixer_norm.scale", "temporal_pre_norm.weight"),
    ("mlp_norm.scale", "channel_pre_norm.weight"),
    ("mixer.cell.Lambda", "temporal_block.rg_lru.recurrent_param"),
    ("mixer.cell.a_gate.w", "temporal_block.rg_lru.recurrent_gate_weight"),
    ("mixer.cell.a_gate.b", "temporal_block.rg_lru.recurrent_gate_bias"),
    ("mixer.cell.x_gate.w", "temporal_block.rg_lru.input_gate_weight"),
    ("mixer.cell.x_gate.b", "temporal_block.rg_lru.input_gate_bias"),
    ("mixer.conv.w", "temporal_block.conv_1d.weight"),
    ("mixer.conv.b", "temporal_block.conv_1d.bias"),
    ("mixer.out.", "temporal_block.o_proj."),
    ("mixer.q.", "temporal_block.q_proj."),
    ("mixer.k.", "temporal_block.k_proj."),
    ("mixer.v.", "temporal_block.v_proj."),
    ("mixer.", "temporal_block."),
    ("mlp.gate.", "mlp_block.gate_proj."),
    ("mlp.up.", "mlp_block.up_proj."),
    ("mlp.down.", "mlp_block.down_proj."),
)
NAME = "difference to transformers"


def compare(subject: Subject, free: Callable[[], None]) -> Iterator[Line]:
    """`free` lets go of our model; `subject.whole` and `subject.limit` are taken before."""
    why = incomparable(subject.twin.config)
    if why is not None:
        yield left_out(NAME, why)
        return
    import transformers

    wanted, tokens = subject.whole.cpu(), subject.row(subject.tokens).cpu()
    limit = subject.limit + ROUNDINGS * subject.coarse
    dtype, config, reach = subject.model.embed.weight.dtype, subject.twin.config, subject.reach
    own = subject.format == "huggingface" and subject.where.is_dir()
    note = f"transformers {transformers.__version__}, one row of {tokens.shape[1]} tokens, "
    note += f"its attention_window_size {reach} + 1; "
    try:
        if own:
            free()
            gc.collect()
            theirs = _loaded(str(subject.where), reach + 1, dtype)
            note += "it read the folder by itself"
        else:
            theirs = _given(subject.twin)
            note += "it was given our tensors"
        found = _logits(theirs, tokens, config)
        note += (
            f"; it takes a rounded a^2 from 1, which alone shifts logits by {subject.coarse:.1e}"
        )
    # whatever stops somebody else's program is its reason, not a failure of ours
    except Exception as error:
        why = f"transformers {transformers.__version__} stopped: {type(error).__name__}: {error}"
        yield left_out(NAME, why[:300])
        return
    yield within(NAME, difference(found, wanted), limit, note)


def incomparable(config: ModelConfig) -> str | None:
    """Why transformers' RecurrentGemma is not this model, or None where it is (or can be made)."""
    try:
        import transformers
    except ImportError:
        return "not compared, because transformers is not installed"
    version = transformers.__version__
    if int(version.partition(".")[0]) < OLDEST:
        return f"not compared, because transformers {version} is older than {OLDEST}"
    recurrent = [mixer for mixer in config.pattern if type(mixer) is RGLRU]
    local = [mixer for mixer in config.pattern if type(mixer) is LocalAttention]
    heads = {mixer.heads for mixer in (*recurrent, *local)}
    right = (
        len(recurrent) + len(local) == len(config.pattern)
        and not set(config.to_dict()) & {"mlp", "mlp_bias", "tied", "norm_weight"}
        and len(heads) == 1
        and len({mixer.width for mixer in recurrent}) <= 1
        and len({mixer.window for mixer in local}) <= 1
        and all(mixer.head_dim * mixer.heads == config.width for mixer in local)
    )
    return None if right else "not compared, because its RecurrentGemma has no such model"


def _loaded(folder: str, window: int, dtype: torch.dtype) -> Any:
    """Theirs, as transformers itself reads the folder; its progress bars would mix with ours."""
    import transformers
    from transformers.utils import logging

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    config.attention_window_size = window
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return transformers.RecurrentGemmaForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True
        ).eval()
    finally:
        if bars:
            logging.enable_progress_bar()


def _given(twin: Griffin) -> Any:
    """Theirs around our tensors: no copy, but of the conv's few taps."""
    import transformers

    config = _their_config(twin.config)
    with torch.device("meta"):
        theirs: Any = transformers.RecurrentGemmaForCausalLM(config)
    tensors = {_their_name(name): tensor.detach().cpu() for name, tensor in twin.named_parameters()}
    for name, tensor in tensors.items():
        if name.endswith("conv_1d.weight"):
            tensors[name] = tensor.T[:, None].contiguous()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    theirs.load_state_dict(tensors, strict=True, assign=True)
    # buffers that no file holds were on meta too
    scale = twin.config.width**0.5 if twin.config.scale_embeddings else 1.0
    theirs.model.normalizer = torch.tensor(scale).bfloat16()
    for module in theirs.modules():
        if hasattr(module, "inv_freq"):
            module.inv_freq, _ = module.compute_default_rope_parameters(config)
            module.original_inv_freq = module.inv_freq
    return theirs.eval()


def _their_config(config: ModelConfig) -> Any:
    import transformers

    local = next((m for m in config.pattern if type(m) is LocalAttention), None)
    recurrent = next((m for m in config.pattern if type(m) is RGLRU), None)
    one = local or recurrent
    assert one is not None
    return transformers.RecurrentGemmaConfig(
        vocab_size=config.vocab,
        hidden_size=config.width,
        intermediate_size=2 * config.mlp_width,  # theirs counts both branches
        num_hidden_layers=config.layers,
        num_attention_heads=one.heads,
        num_key_value_heads=local.kv_heads if local else 1,
        lru_width=recurrent.width if recurrent else config.width,
        conv1d_width=recurrent.conv_width if recurrent else 4,
        attention_window_size=(local.window if local else 1) + 1,
        logits_soft_cap=config.logit_cap or 30.0,
        rms_norm_eps=config.norm_eps,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": local.rope_base if local else 10_000.0,
            "partial_rotary_factor": local.rope_fraction if local else 0.5,
        },
        block_types=["recurrent" if type(m) is RGLRU else "attention" for m in config.pattern],
        pad_token_id=None,
    )


def _their_name(name: str) -> str:
    for ours, theirs in WORDS:
        name = name.replace(ours, theirs, 1) if not name.startswith("model.e") else name
    return name


def _logits(theirs: Any, tokens: Tensor, config: ModelConfig) -> Tensor:
    """(T, V) fp32 of one row. Where ours has no cap, theirs is asked before its own."""
    if config.logit_cap:
        return theirs(tokens, use_cache=False).logits[0].float()
    return theirs.lm_head(theirs.model(tokens, use_cache=False).last_hidden_state)[0].float()
