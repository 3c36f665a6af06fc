"""Meta's own layout of Llama 3: whole or in slices, and one model with Hugging Face's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import detect, load_model, read_config, save_model
from griffin_lm.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    ConfigError,
)
from griffin_lm.models import PRESETS, ModelConfig
from tests.checkpoints.meta_files import PARAMS, meta_logits, random_weights, write_meta
from tests.parity import record_parity

SCALED: Any = {"rope_factor": 8.0}
PLAIN = {key: value for key, value in PARAMS.items() if key != "use_scaled_rope"}
TOKENS = torch.randint(160, (2, 60), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model: griffin.Griffin) -> torch.Tensor:
    found, _ = model(TOKENS)
    assert found is not None
    return found


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize(("params", "given", "factor"), [(PLAIN, None, 1.0), (PARAMS, SCALED, 8.0)])
def test_it_gives_the_logits_of_metas_own_forward_pass(
    files: int, params: Any, given: Any, factor: float, tmp_path: Path
) -> None:
    weights = random_weights(params)
    write_meta(tmp_path, params, weights, files)
    assert detect(tmp_path) == detect(tmp_path / "consolidated.00.pth") == "meta"
    model = load_model(tmp_path, config=given)
    error = (logits(model) - meta_logits(params, weights, TOKENS, factor)).abs().max().item()
    rope = "scaled RoPE" if given else "RoPE"
    case = f"{files} file{'s' * (files > 1)}, GQA, {rope}, 128-wide heads"
    record_parity(f"formats | Meta's llama -> griffin | {case}", error, 2e-5)


def test_from_metas_and_from_hugging_faces_layout_it_is_one_model(tmp_path: Path) -> None:
    write_meta(tmp_path / "meta", PARAMS, random_weights(PARAMS), files=2)
    first = load_model(tmp_path / "meta", config=SCALED)
    save_model(first, tmp_path / "hf", "huggingface")
    second = load_model(tmp_path / "hf")
    assert second.config == first.config
    assert second.origin.model() == first.origin.model()
    assert torch.equal(logits(first), logits(second))
    transformers = pytest.importorskip("transformers")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(info.values()), info
    with torch.no_grad():
        exact = theirs(TOKENS, use_cache=False).logits
    error = (logits(first) - exact).abs().max().item()
    record_parity("formats | Meta's llama -> huggingface llama | logits", error, 2e-5)


@pytest.mark.parametrize("files", [1, 2])
def test_a_head_that_is_the_embedding_is_tied(files: int, tmp_path: Path) -> None:
    weights = random_weights(PLAIN, tied=True)
    write_meta(tmp_path / "twice", PLAIN, weights, files)
    del weights["output.weight"]
    write_meta(tmp_path / "once", PLAIN, weights, files)
    twice, once = (load_model(tmp_path / name) for name in ("twice", "once"))
    assert twice.config.tied and twice.config == once.config
    assert twice.origin.model() == once.origin.model()


def test_a_table_of_rotations_in_the_file_is_passed_over(tmp_path: Path) -> None:
    weights = random_weights(PLAIN)
    write_meta(tmp_path, PLAIN, weights | {"rope.freqs": torch.rand(64)})
    assert torch.equal(load_model(tmp_path).embed.weight, weights["tok_embeddings.weight"])


def test_weights_in_bfloat16_stay_as_they_are(tmp_path: Path) -> None:
    weights = {name: weight.bfloat16() for name, weight in random_weights(PLAIN).items()}
    write_meta(tmp_path, PLAIN, weights, files=2)
    model = load_model(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    value = model.state_dict()["layers.1.mlp.down.weight"]
    assert torch.equal(value, weights["layers.1.feed_forward.w2.weight"])


# ---- the factor of scaled rotation, which params.json does not say


def published(monkeypatch: pytest.MonkeyPatch, folder: Path, *factors: float) -> None:
    """As if presets of these factors had the shapes of the files."""
    write_meta(folder, PARAMS, random_weights(PARAMS))
    for factor in factors:
        config = read_config(folder, {"rope_factor": factor})
        monkeypatch.setitem(PRESETS, f"like-llama-{factor}", config)


def test_the_factor_is_that_of_the_preset_with_these_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(monkeypatch, tmp_path, 32.0)
    assert read_config(tmp_path) == PRESETS["like-llama-32.0"]
    assert read_config(tmp_path, {"rope_factor": 8.0}) == read_config(tmp_path, SCALED)
    assert read_config(tmp_path, "like-llama-32.0") == PRESETS["like-llama-32.0"]


@pytest.mark.parametrize("factors", [(), (8.0, 32.0)])
def test_where_the_factor_is_open_the_choices_are_named(
    factors: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(monkeypatch, tmp_path, *factors)
    with pytest.raises(ConfigError, match=r"'rope_factor': 8.0.*3\.1.*32\.0.*3\.2"):
        load_model(tmp_path)


def test_a_factor_in_the_file_is_taken(tmp_path: Path) -> None:
    said = PARAMS | {"rope_scaling_factor": 32.0, "high_freq_factor": 8.0}
    write_meta(tmp_path, said, random_weights(PARAMS))
    mixer: Any = read_config(tmp_path).pattern[0]
    assert (mixer.rope_factor, mixer.rope_high, mixer.rope_context) == (32.0, 8.0, 8192)


@pytest.mark.parametrize("name", ["llama-3-8b", "llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b"])
def test_params_of_the_published_sizes_lead_to_their_presets(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By headers alone: the weights would be too large for a test."""
    config = griffin.PRESETS[name]
    mixer: Any = config.pattern[0]
    extra = {"llama-3-8b": (1.3, 1024), "llama-3.1-8b": (1.3, 1024), "llama-3.2-1b": (1.5, 256)}
    multiplier, multiple = extra.get(name, (1.0, 256))
    params = {
        "dim": config.width, "n_layers": config.layers, "n_heads": mixer.heads, "n_kv_heads": 8,
        "vocab_size": 128256, "ffn_dim_multiplier": multiplier, "multiple_of": multiple,
        "norm_eps": 1e-05, "rope_theta": 500000.0,
    }  # fmt: skip
    params |= {"use_scaled_rope": True} if mixer.rope_factor != 1 else {}
    tiny = random_weights(PLAIN, tied=config.tied)
    write_meta(tmp_path, params, tiny)
    from griffin_lm.checkpoints.meta import shards

    found = shards.MetaWeights(tmp_path)
    found.shapes |= {
        "tok_embeddings.weight": (128256, config.width),
        "layers.0.feed_forward.w1.weight": (config.mlp_width, config.width),
    }
    monkeypatch.setitem(vars(found), "tied", config.tied)
    from griffin_lm.checkpoints.meta.params import infer

    assert infer(found, None) == config


# ---- what is refused


def refusals(folder: Path, params: Any, **changes: Any) -> ModelConfig:
    write_meta(folder, params | changes, random_weights(PLAIN))
    return load_model(folder, config=SCALED if params is PARAMS else None).config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantization_args": {"scheme": "int8"}}, "quantization_args"),
        ({"vision_chunk_size": 448}, "vision_chunk_size"),
        ({"dim": 500}, "dim|multiple_of"),
        ({"dim": "512"}, "dim"),
        ({"n_heads": 7}, "wq|heads"),
        ({"n_heads": 0}, "n_heads"),
        ({"n_kv_heads": 4}, "wk"),
        ({"n_kv_heads": 3}, "kv_heads"),
        ({"n_layers": 3}, r"layers\.2"),
        ({"n_layers": 10**9}, "layers"),
        ({"vocab_size": 161}, "vocab_size"),
        ({"multiple_of": 100}, "multiple_of"),
        ({"ffn_dim_multiplier": 1e300}, "ffn_dim_multiplier"),
        ({"norm_eps": None}, "norm_eps"),
        ({"norm_eps": 0}, "norm_eps"),
        ({"use_scaled_rope": "yes"}, "use_scaled_rope"),
    ],
)
def test_params_that_do_not_fit_are_refused_by_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        refusals(tmp_path, PLAIN, **changes)
    assert str(tmp_path) in str(caught.value)


def test_without_a_rotary_base_the_choices_are_named(tmp_path: Path) -> None:
    params = {key: value for key, value in PLAIN.items() if key != "rope_theta"}
    write_meta(tmp_path, params, random_weights(PLAIN))
    with pytest.raises(ConfigError, match=r"rope_base.*500000.*10000"):
        load_model(tmp_path)
    mixer: Any = load_model(tmp_path, config={"rope_base": 10000.0}).config.pattern[0]
    assert mixer.rope_base == 10000.0


@pytest.mark.parametrize("preset", ["llama-3.2-1b", "tiny-mamba"])
def test_a_config_of_another_model_is_refused(preset: str, tmp_path: Path) -> None:
    write_meta(tmp_path, PARAMS, random_weights(PARAMS))
    with pytest.raises(ConfigError, match="width is"):
        load_model(tmp_path, config=preset)


def test_a_config_that_scales_where_the_file_does_not_is_refused(tmp_path: Path) -> None:
    write_meta(tmp_path / "a", PARAMS, random_weights(PARAMS))
    write_meta(tmp_path / "b", PLAIN, random_weights(PARAMS))
    with pytest.raises(ConfigError, match="use_scaled_rope is False"):
        load_model(tmp_path / "b", config=read_config(tmp_path / "a", SCALED))


def test_a_missing_file_of_several_is_named(tmp_path: Path) -> None:
    write_meta(tmp_path, PLAIN, random_weights(PLAIN), files=2)
    (tmp_path / "consolidated.00.pth").unlink()
    with pytest.raises(CheckpointNotFound, match=r"consolidated\.00\.pth"):
        load_model(tmp_path)


def test_missing_params_are_named(tmp_path: Path) -> None:
    write_meta(tmp_path, PLAIN, random_weights(PLAIN))
    (tmp_path / "params.json").unlink()
    with pytest.raises(CheckpointNotFound, match=r"params\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("change", ["a norm", "a shape", "a name"])
def test_files_that_are_not_of_one_checkpoint_are_refused(change: str, tmp_path: Path) -> None:
    weights = random_weights(PLAIN)
    write_meta(tmp_path, PLAIN, weights, files=2)
    other = torch.load(tmp_path / "consolidated.01.pth", weights_only=True)
    if change == "a norm":
        other["norm.weight"] = other["norm.weight"] + 1
    elif change == "a shape":
        other["output.weight"] = other["output.weight"][1:].clone()
    else:
        other["bias"] = other.pop("output.weight")
    torch.save(other, tmp_path / "consolidated.01.pth")
    with pytest.raises(CheckpointMismatch, match="not of one checkpoint"):
        load_model(tmp_path)


def test_a_pickle_that_runs_code_is_never_read(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("run",))

    write_meta(tmp_path, PLAIN, random_weights(PLAIN))
    torch.save({"tok_embeddings.weight": Evil()}, tmp_path / "consolidated.00.pth")
    with pytest.raises(CheckpointError, match="print"):
        load_model(tmp_path)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    write_meta(tmp_path, PLAIN, random_weights(PLAIN))
    file = tmp_path / "consolidated.00.pth"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointCorrupt, match="damaged"):
        load_model(tmp_path)


def test_it_is_not_written(tmp_path: Path) -> None:
    model = griffin.build("tiny-llama")
    with pytest.raises(ConfigError, match="no format 'meta'"):
        save_model(model, tmp_path / "m", "meta")


def test_params_json_is_read_as_carefully_as_any(tmp_path: Path) -> None:
    write_meta(tmp_path, PLAIN, random_weights(PLAIN))
    text = json.dumps(PLAIN)
    for damaged in (text[:-5], text.replace("512", "NaN"), "[]", ""):
        (tmp_path / "params.json").write_text(damaged)
        with pytest.raises(CheckpointCorrupt, match=r"params\.json"):
            load_model(tmp_path)
