"""A checkpoint of RecurrentGemma 9B without its weights: headers of all tensors, holes for data."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

WIDTH, MLP, HEADS, LAYERS, VOCAB, HEAD = 4096, 12288, 16, 38, 256_000, 256
CONFIG = {
    "architectures": ["RecurrentGemmaForCausalLM"],
    "model_type": "recurrent_gemma",
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 1,
    "head_dim": HEAD,
    "lru_width": WIDTH,
    "attention_window_size": 2048,
    "conv1d_width": 4,
    "logits_soft_cap": 30.0,
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-6,
    "block_types": ["recurrent", "recurrent", "attention"],
    "hidden_activation": "gelu_pytorch_tanh",
    "torch_dtype": "bfloat16",
}


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor by Hugging Face's name, in the order of the published shards."""
    yield "model.embed_tokens.weight", (VOCAB, WIDTH)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        yield f"{at}.temporal_pre_norm.weight", (WIDTH,)
        yield f"{at}.channel_pre_norm.weight", (WIDTH,)
        for name, out, into in (
            ("gate_proj", MLP, WIDTH),
            ("up_proj", MLP, WIDTH),
            ("down_proj", WIDTH, MLP),
        ):
            yield f"{at}.mlp_block.{name}.weight", (out, into)
            yield f"{at}.mlp_block.{name}.bias", (out,)
        block = f"{at}.temporal_block"
        if layer % 3 == 2:
            for name, out in (("q", WIDTH), ("k", HEAD), ("v", HEAD), ("o", WIDTH)):
                yield f"{block}.{name}_proj.weight", (out, WIDTH)
            yield f"{block}.o_proj.bias", (WIDTH,)
            continue
        for name in ("linear_x", "linear_y", "linear_out"):
            yield f"{block}.{name}.weight", (WIDTH, WIDTH)
            yield f"{block}.{name}.bias", (WIDTH,)
        yield f"{block}.conv_1d.weight", (WIDTH, 1, 4)
        yield f"{block}.conv_1d.bias", (WIDTH,)
        yield f"{block}.rg_lru.recurrent_param", (WIDTH,)
        for gate in ("input_gate", "recurrent_gate"):
            side = WIDTH // HEADS
            yield f"{block}.rg_lru.{gate}_weight", (HEADS, side, side)
            yield f"{block}.rg_lru.{gate}_bias", (HEADS, side)
    yield "model.final_norm.weight", (WIDTH,)


def write_nine(folder: Path, largest: int = 5 * 10**9) -> Path:
    """Shards of at most `largest` bytes that take no room: what was not written reads as zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, tuple[tuple[int, ...], int]]] = [{}]
    used = 0
    for name, shape in shapes():
        size = 2
        for side in shape:
            size *= side
        if used + size > largest:
            shards.append({})
            used = 0
        shards[-1][name] = (shape, size)
        used += size
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        where |= dict.fromkeys(shard, file)
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, (shape, size) in shard.items():
            span = [at, at + size]
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": span}
            at += size
        data = json.dumps(header).encode()
        with open(folder / file, "wb") as out:
            out.write(len(data).to_bytes(8, "little") + data)
            out.truncate(8 + len(data) + at)
    index = {"metadata": {"total_size": sum(s for row in shards for _, s in row.values())}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index | {"weight_map": where}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert sum(os.stat(p).st_blocks for p in folder.iterdir()) * 512 < 10**7, "no sparse files here"
    return folder
