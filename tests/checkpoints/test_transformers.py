"""What transformers saves we load, and what we save it loads: tensors to the bit, logits to 2e-5.

It sees attention_window_size keys, we that many and the token itself, as DeepMind's code: so it is
asked with a window one larger. One row, no padding: there it is right.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import load_model, read_config, save_model
from griffin_lm.errors import CheckpointMismatch
from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import ModelConfig
from tests.checkpoints.helpers import TINY, random_model
from tests.parity import record_parity

# the dev extra brings it; the package itself must pass its tests without
transformers: Any = pytest.importorskip("transformers")

SETTINGS: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "lru_width": 32,
    "attention_window_size": 8,
    "logits_soft_cap": 5.0,
}
DIALECTS: dict[str, dict[str, Any]] = {
    "as the 2B": {},
    "lru_width null": {"lru_width": None},
    "another lru_width": {"lru_width": 48},
    "a head for each query": {"num_key_value_heads": None},
    "two key heads of four": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "one head": {"num_attention_heads": 1},
    "another head_dim": {"head_dim": 24},
    "another rotary base": {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}},
    "all of a head turns": {"partial_rotary_factor": 1.0},
    "attention first": {"block_types": ["attention", "recurrent"]},
    "every layer named": {
        "block_types": ["recurrent", "recurrent", "attention", "recurrent", "recurrent"]
    },
    "no attention": {"block_types": ["recurrent"]},
    "no recurrence": {"block_types": ["attention"]},
    "three taps": {"conv1d_width": 3},
    "another eps": {"rms_norm_eps": 1e-2},
    "a high cap": {"logits_soft_cap": 30.0},
}


def their_model(changes: dict[str, Any] | None = None) -> Any:
    """A random model of theirs; norms, biases and gates far enough from 0 to matter."""
    config = transformers.RecurrentGemmaConfig(**SETTINGS | (changes or {}))
    model = transformers.RecurrentGemmaForCausalLM(config).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if "recurrent_param" not in name:
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return model


def their_logits(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    """Of a folder, as DeepMind's code would see it."""
    window = json.loads((folder / "config.json").read_text())["attention_window_size"]
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attention_window_size=window + 1, output_loading_info=True
    )
    assert not any(info.values()), info
    assert type(model) is transformers.RecurrentGemmaForCausalLM
    with torch.no_grad():
        return model.eval()(tokens, use_cache=False).logits


def compare(what: str, folder: Path, model: griffin.Griffin) -> None:
    tokens = torch.randint(0, 96, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, _ = model(tokens)
    assert ours is not None
    assert ours.abs().max() > 0.5, "logits near zero would agree whatever we do"
    error = (ours - their_logits(folder, tokens)).abs().max().item()
    record_parity(f"checkpoints, transformers' files: {what}", error, 2e-5)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_transformers_saved_gives_its_logits(dialect: str, tmp_path: Path) -> None:
    theirs = their_model(DIALECTS[dialect])
    theirs.save_pretrained(tmp_path / "m")
    ours = load_model(tmp_path / "m")
    mine, known = ours.state_dict(), theirs.state_dict()
    assert torch.equal(mine["embed.weight"], known["model.embed_tokens.weight"])
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    compare(f"{dialect}, loaded", tmp_path / "m", ours)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_saved_again_it_is_transformers_model_to_the_bit(dialect: str, tmp_path: Path) -> None:
    theirs = their_model(DIALECTS[dialect])
    theirs.save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), tmp_path / "ours", "huggingface")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    known = theirs.state_dict()
    assert again.state_dict().keys() == known.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, known[name]), name
    for setting in ("head_dim", "num_key_value_heads", "rope_parameters", "layers_block_type"):
        if dialect != "no attention":
            assert getattr(again.config, setting) == getattr(theirs.config, setting), setting
    assert read_config(tmp_path / "ours") == read_config(tmp_path / "theirs")


def test_shards_of_transformers_are_read(tmp_path: Path) -> None:
    theirs = their_model()
    theirs.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    assert len(list(tmp_path.glob("m/*.safetensors"))) > 3
    compare("sharded", tmp_path / "m", load_model(tmp_path / "m"))


def test_bfloat16_files_of_transformers_are_read_as_they_are(tmp_path: Path) -> None:
    theirs = their_model().bfloat16()
    theirs.save_pretrained(tmp_path / "m")
    ours = load_model(tmp_path / "m")
    assert ours.embed.weight.dtype == torch.bfloat16
    gate = theirs.model.layers[0].mlp_block.gate_proj.weight
    assert torch.equal(ours.state_dict()["layers.0.mlp.gate.weight"], gate)


CONFIGS = {
    "tiny": TINY,
    "no cap": ModelConfig(**{**vars(TINY), "logit_cap": 0.0}),
    "wide recurrence": ModelConfig(
        **{
            **vars(TINY),
            "pattern": (
                RGLRU(width=64, heads=4, conv_width=3),
                LocalAttention(
                    heads=4, head_dim=12, window=5, kv_heads=2, rope_base=50.0, rope_fraction=0.5
                ),
            ),
        }
    ),
    "hawk": ModelConfig(**{**vars(TINY), "pattern": (RGLRU(width=32, heads=2),)}),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("limit", [5_000_000_000, 30_000])
def test_what_we_save_gives_our_logits_in_transformers(
    name: str, limit: int, tmp_path: Path
) -> None:
    model = random_model(CONFIGS[name])
    save_model(model, tmp_path / "m", "huggingface", max_shard_bytes=limit)
    assert (tmp_path / "m" / "model.safetensors").exists() == (limit > 30_000)
    compare(f"{name}, saved in files of {limit} bytes", tmp_path / "m", model)
    assert load_model(tmp_path / "m").config == model.config


class Words:
    """A vocabulary of which only the special ids matter here."""

    bos_id, eos_id, pad_id = 2, 1, 0

    def __init__(self, *stops: int) -> None:
        self.stop_ids = stops

    def save(self, folder: Path, /) -> None:
        (folder / "tokenizer.model").write_bytes(b"pieces")


@pytest.mark.parametrize(("stops", "eos"), [((1,), 1), ((1, 7), [1, 7])])
def test_special_ids_reach_transformers(stops: tuple[int, ...], eos: Any, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", "huggingface", tokenizer=Words(*stops))
    assert (tmp_path / "m" / "tokenizer.model").read_bytes() == b"pieces"
    for kind in (transformers.GenerationConfig, transformers.AutoConfig):
        found = kind.from_pretrained(tmp_path / "m")
        assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (2, eos, 0)


def test_unknown_special_ids_are_not_made_up(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", "huggingface")
    found = transformers.AutoConfig.from_pretrained(tmp_path / "m")
    assert found.eos_token_id is None
    assert not (tmp_path / "m" / "generation_config.json").exists()


def resave(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_head_equal_to_the_embedding_is_read_once(tmp_path: Path) -> None:
    their_model().save_pretrained(tmp_path / "m")
    alone = load_model(tmp_path / "m")
    resave(
        tmp_path / "m",
        lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}),
    )
    seen: list[tuple[int, int]] = []
    twice = load_model(tmp_path / "m", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert twice.origin.model() == alone.origin.model()


def test_a_head_that_differs_in_one_bit_is_refused(tmp_path: Path) -> None:
    their_model().save_pretrained(tmp_path / "m")

    def untie(tensors: dict[str, torch.Tensor]) -> None:
        head = tensors["model.embed_tokens.weight"].clone()
        head[95, 31] = -head[95, 31]
        tensors["lm_head.weight"] = head

    resave(tmp_path / "m", untie)
    with pytest.raises(CheckpointMismatch, match=r"lm_head\.weight differs"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(("rows", "read"), [(128, True), (97, False), (64, False)])
def test_rows_of_padding_below_the_vocabulary_are_dropped(
    rows: int, read: bool, tmp_path: Path
) -> None:
    theirs = their_model()
    theirs.save_pretrained(tmp_path / "m")
    words = theirs.state_dict()["model.embed_tokens.weight"]
    name = "model.embed_tokens.weight"
    resave(tmp_path / "m", lambda t: t.update({name: torch.cat([words, words])[:rows].clone()}))
    if read:
        loaded = load_model(tmp_path / "m")
        assert torch.equal(loaded.embed.weight, words)
        assert loaded.embed.weight.untyped_storage().nbytes() == words.nbytes
    else:
        with pytest.raises(CheckpointMismatch, match=r"embed_tokens\.weight"):
            load_model(tmp_path / "m")
