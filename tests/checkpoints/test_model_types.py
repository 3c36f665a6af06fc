"""Folders of gemma, llama and mamba: transformers' files give its logits, ours it loads whole.

Tensors to the bit, logits in fp32 to 2e-5: whole, in chunks and step by step.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import griffin_lm as griffin
from griffin_lm.checkpoints import detect, load_model, read_config, save_model
from tests.parity import record_parity

# the dev extra brings it; the package itself must pass its tests without
transformers: Any = pytest.importorskip("transformers")

TOLERANCE = 2e-5
VOCAB, ORIGINAL = 61, 24

ATTENTION: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "pad_token_id": None,
}
LLAMA_3_1 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
    "rope_theta": 500_000.0,
}
MAMBA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "state_size": 5,
    "num_hidden_layers": 3,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("Gemma", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma, a key head for each query": ("Gemma", {"num_key_value_heads": 4, "head_dim": 24}),
    "gemma, untied": ("Gemma", {"tie_word_embeddings": False}),
    "llama": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
    "llama, scaled RoPE": ("Llama", {"rope_parameters": LLAMA_3_1}),
    "llama, scaled RoPE, 128-wide heads": (
        "Llama",
        {"rope_parameters": LLAMA_3_1 | {"factor": 32.0}, "head_dim": 128},
    ),
    "llama, head_dim and key heads left out": (
        "Llama",
        {"head_dim": None, "num_key_value_heads": None},
    ),
    "mamba": ("Mamba", {}),
    "mamba, other sizes": (
        "Mamba",
        {"expand": 3, "time_step_rank": 5, "conv_kernel": 3, "layer_norm_epsilon": 1e-3},
    ),
    "mamba, untied": ("Mamba", {"tie_word_embeddings": False, "residual_in_fp32": False}),
}


def their_config(name: str) -> Any:
    """A configuration of theirs."""
    kind, changes = KINDS[name]
    base = MAMBA if kind == "Mamba" else ATTENTION
    return getattr(transformers, f"{kind}Config")(**base | changes)


@cache
def their_model(name: str) -> Any:
    """A random model of theirs, every weight far enough from its first value to matter."""
    theirs = getattr(transformers, f"{KINDS[name][0]}ForCausalLM")(their_config(name)).eval()
    random = torch.Generator().manual_seed(7)
    for key, weight in theirs.requires_grad_(False).named_parameters():
        noise = torch.randn(weight.shape, generator=random)
        if weight.dim() == 1 or key.endswith("A_log"):
            weight.add_(0.2 * noise)
        else:
            weight.copy_(noise * weight.shape[-1] ** -0.5)
    return theirs


TOKENS = torch.randint(VOCAB, (2, 3 * ORIGINAL), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits_in_three_ways(model: griffin.Griffin) -> dict[str, Tensor]:
    """Of all tokens at once, of chunks, and of single steps."""
    found = {"whole": model(TOKENS)[0]}
    for way, sizes in (("in chunks", (1, 7, 0, 30, 2, 32)), ("step by step", (1,) * 72)):
        state, outs, at = None, [], 0
        for size in sizes:
            out, state = model(TOKENS[:, at : at + size], state=state)
            outs.append(out)
            at += size
        found[way] = torch.cat(outs, 1)
    return found


@torch.no_grad()
def compare(row: str, ours: griffin.Griffin, theirs: Any) -> None:
    """The largest difference of the three ways is a row of the page on parity."""
    exact = theirs(TOKENS, use_cache=False).logits
    assert exact.abs().max() > 0.5, "logits near zero would agree whatever we do"
    error = max((mine - exact).abs().max().item() for mine in logits_in_three_ways(ours).values())
    record_parity(f"formats | {row} | logits whole, chunked, stepwise", error, TOLERANCE)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("limit", ["5GB", "20KB"])
def test_what_transformers_saved_gives_its_logits(name: str, limit: str, tmp_path: Path) -> None:
    theirs = their_model(name)
    theirs.save_pretrained(tmp_path / "m", max_shard_size=limit)
    assert (len(list(tmp_path.glob("m/*.safetensors"))) > 1) == (limit == "20KB")
    assert detect(tmp_path / "m") == "huggingface"
    ours = load_model(tmp_path / "m")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    case = ", sharded" if limit == "20KB" else ""
    compare(f"huggingface {name}{case} -> griffin", ours, theirs)


@pytest.mark.parametrize("name", KINDS)
def test_saved_again_it_is_transformers_model_to_the_bit(name: str, tmp_path: Path) -> None:
    theirs = their_model(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    save_model(ours, tmp_path / "ours", "huggingface", max_shard_bytes=20_000)
    again, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values()), info
    assert type(again) is type(theirs)
    known = theirs.state_dict()
    assert again.state_dict().keys() == known.keys()
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, known[key]), key
    same = set(theirs.config.to_dict()) - {"dtype", "bos_token_id", "eos_token_id", "pad_token_id"}
    same -= {"architectures", "max_position_embeddings", "_name_or_path"}
    same -= {"residual_in_fp32"}
    for setting in same:
        assert getattr(again.config, setting) == getattr(theirs.config, setting), setting
    assert read_config(tmp_path / "ours") == ours.config
    compare(f"griffin -> huggingface {name}", ours, again)


@pytest.mark.parametrize("name", ["gemma", "llama, scaled RoPE", "mamba"])
def test_through_our_own_format_and_back_nothing_changes(name: str, tmp_path: Path) -> None:
    their_model(name).save_pretrained(tmp_path / "a")
    first = load_model(tmp_path / "a")
    save_model(first, tmp_path / "b")
    save_model(load_model(tmp_path / "b"), tmp_path / "c", "huggingface")
    last = load_model(tmp_path / "c")
    assert last.config == first.config
    assert last.origin.model() == first.origin.model()
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, last.state_dict()[key]), key


@pytest.mark.parametrize("name", ["gemma", "llama", "mamba"])
def test_files_in_bfloat16_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    getattr(transformers, f"{KINDS[name][0]}ForCausalLM")(
        their_config(name)
    ).bfloat16().save_pretrained(tmp_path / "m")
    ours = load_model(tmp_path / "m")
    assert ours.embed.weight.dtype == torch.bfloat16
    with torch.no_grad():
        logits, _ = ours(TOKENS)
    assert logits is not None and logits.dtype == torch.bfloat16 and bool(logits.isfinite().all())


def test_the_older_way_of_scaling_rope_gives_the_same_model(tmp_path: Path) -> None:
    their_model("llama, scaled RoPE").save_pretrained(tmp_path / "m")
    newer = read_config(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    plain = json.loads(file.read_text())
    inner = plain.pop("rope_parameters")
    plain["rope_theta"] = inner.pop("rope_theta")
    for key in ("rope_type", "type"):
        said = {k: v for k, v in inner.items() if k != "rope_type"} | {key: "llama3"}
        file.write_text(json.dumps(plain | {"rope_scaling": said}))
        assert read_config(tmp_path / "m") == newer
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    compare("huggingface llama, rope_scaling -> griffin", load_model(tmp_path / "m"), again)


def test_a_head_that_stands_twice_must_be_the_embedding(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    their_model("llama, tied").save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, file)
    assert load_model(tmp_path / "m").config.tied
    tensors["lm_head.weight"][3, 5] += 1
    save_file(tensors, file)
    with pytest.raises(griffin.GriffinError, match=r"lm_head\.weight differs"):
        load_model(tmp_path / "m")
