"""Adapters on disk: peft over transformers computes what we trained, we read what it wrote."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints.adapters import ADAPTER_CONFIG, FACTS
from griffin_lm.errors import CheckpointError, CheckpointMismatch, CheckpointNotFound
from griffin_lm.inference.converting import convert
from griffin_lm.models import Griffin
from griffin_lm.training.finetuning import lora
from griffin_lm.training.finetuning.config import FinetuneConfig
from griffin_lm.training.finetuning.targets import Targets
from tests.training.finetuning.conftest import FAMILIES, adapted, base_of

LORA = FinetuneConfig(rank=3, alpha=5.0)
GATES = replace(LORA, gates=True)
# shorter than every window: transformers sees one key fewer (decisions/0002)
TOKENS = torch.randint(3, 380, (2, 7), generator=torch.Generator().manual_seed(0))


def kept(
    model: Griffin, targets: Targets, base: Path, folder: Path, config: FinetuneConfig = LORA
) -> Path:
    """The adapter, saved."""
    origin = base_of(base).fingerprint
    facts = lora.facts_of(origin, base.name, True, {})
    lora.save_adapter(model, targets, folder, config, str(base), facts)
    return folder


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found = model.eval()(TOKENS)
    return found[0] if isinstance(found, tuple) else found.logits


def in_transformers(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize(
    ("family", "config"),
    [("tiny-griffin", GATES), *((family, LORA) for family in FAMILIES)],
    ids=["tiny-griffin-gates", *FAMILIES],
)
def test_peft_over_transformers_computes_what_was_trained_here(
    folders: dict[str, Path], family: str, config: FinetuneConfig, tmp_path: Path
):
    from peft import PeftModel

    model, targets = adapted(folders[family], config)
    ours = logits(model)
    folder = kept(model, targets, folders[family], tmp_path / "adapter", config)
    convert(folders[family], tmp_path / "base", "huggingface")
    plain = in_transformers(tmp_path / "base")
    theirs = PeftModel.from_pretrained(plain, folder)
    assert (ours - logits(base_of(folders[family]).lm.model)).abs().max() > 1e-2
    torch.testing.assert_close(logits(theirs), ours, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("config", [LORA, GATES], ids=["linear", "gates"])
def test_what_peft_wrote_over_transformers_is_read_here(
    folders: dict[str, Path], config: FinetuneConfig, tmp_path: Path
):
    import peft

    convert(folders["tiny-griffin"], tmp_path / "base", "huggingface")
    settings: Any = peft.LoraConfig(
        r=2,
        target_modules=["q_proj", "linear_out", "down_proj"],
        target_parameters=["rg_lru.recurrent_gate_weight", "rg_lru.input_gate_weight"]
        if config.gates
        else None,
        alpha_pattern={"q_proj": 3},
        use_rslora=True,
        init_lora_weights=False,
    )
    theirs = peft.get_peft_model(in_transformers(tmp_path / "base"), settings)
    theirs.save_pretrained(tmp_path / "adapter")
    lm = griffin.load(folders["tiny-griffin"], dtype="float32", adapter=tmp_path / "adapter")
    torch.testing.assert_close(logits(lm.model), logits(theirs), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family", [*FAMILIES, "tiny-gru"])
def test_an_adapter_loaded_into_the_weights_equals_the_one_beside_them(
    folders: dict[str, Path], family: str, tmp_path: Path
):
    model, targets = adapted(folders[family], LORA)
    folder = kept(model, targets, folders[family], tmp_path / "adapter")
    lm = griffin.load(folders[family], dtype="float32", adapter=folder)
    torch.testing.assert_close(logits(lm.model), logits(model), rtol=1e-5, atol=1e-5)
    assert lm.instruction_tuned  # as the adapter's own file says
    named = json.loads((folder / ADAPTER_CONFIG).read_text())["target_modules"]
    assert ("q_proj" in named) == (family in ("tiny-griffin", "tiny-llama", "tiny-gemma"))


@pytest.mark.parametrize("family", ["tiny-griffin", "tiny-llama"])
def test_a_merged_model_has_the_same_logits_in_transformers(
    folders: dict[str, Path], family: str, tmp_path: Path
):
    config = GATES if family == "tiny-griffin" else LORA
    model, targets = adapted(folders[family], config)
    folder = kept(model, targets, folders[family], tmp_path / "adapter", config)
    done = convert(folders[family], tmp_path / "merged", "huggingface", adapter=folder)
    assert done.checked
    merged = in_transformers(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-5, atol=2e-5)


def test_a_merge_is_rounded_once_to_the_dtype_that_is_written(
    folders: dict[str, Path], tmp_path: Path
):
    base = folders["tiny-griffin"]
    convert(base, tmp_path / "narrow", "griffin", dtype=torch.bfloat16)
    model, targets = adapted(tmp_path / "narrow", LORA)
    folder = kept(model, targets, tmp_path / "narrow", tmp_path / "adapter")
    convert(tmp_path / "narrow", tmp_path / "merged", "griffin", adapter=folder)
    merged = base_of(tmp_path / "merged").lm.model
    wide = griffin.load(tmp_path / "narrow", dtype="float32", adapter=folder).model
    for (name, mine), exact in zip(merged.named_parameters(), wide.parameters(), strict=True):
        assert torch.equal(mine, exact.bfloat16().float()), name


def test_an_adapter_of_other_weights_is_refused(folders: dict[str, Path], tmp_path: Path):
    base = folders["tiny-griffin"]
    model, targets = adapted(base, LORA)
    folder = kept(model, targets, base, tmp_path / "adapter")
    other = griffin.build(base_of(base).lm.config, seed=99)
    griffin.save(other, tmp_path / "other")
    for read in (
        lambda: griffin.load(tmp_path / "other", tokenizer=base, adapter=folder),
        lambda: convert(tmp_path / "other", tmp_path / "to", "griffin", adapter=folder),
    ):
        with pytest.raises(CheckpointMismatch, match="was made for weights with the fingerprint"):
            read()
    (folder / FACTS).unlink()
    griffin.load(tmp_path / "other", tokenizer=base, adapter=folder)


def test_an_adapter_of_another_family_is_refused(folders: dict[str, Path], tmp_path: Path):
    model, targets = adapted(folders["tiny-llama"], LORA)
    folder = kept(model, targets, folders["tiny-llama"], tmp_path / "adapter")
    with pytest.raises(CheckpointMismatch, match="have no place in this model"):
        griffin.load(folders["tiny-griffin"], adapter=folder)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("use_dora", True, "use_dora is True, and only plain LoRA"),
        ("peft_type", "IA3", "only LORA can be read"),
        ("modules_to_save", ["lm_head"], "modules_to_save"),
        ("lora_alpha", "many", "not a number"),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_name(
    folders: dict[str, Path], tmp_path: Path, setting: str, value: object, said: str
):
    base = folders["tiny-llama"]
    folder = kept(*adapted(base, LORA), base, tmp_path / "adapter")
    file = folder / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: value}))
    with pytest.raises(CheckpointError, match=said):
        griffin.load(base, adapter=folder)


def test_a_folder_without_an_adapter_is_said_to_be_none(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(CheckpointNotFound, match=r"holds no adapter_config\.json"):
        griffin.load(folders["tiny-llama"], adapter=tmp_path)


def test_an_adapter_where_a_model_is_asked_for_says_what_to_do(
    folders: dict[str, Path], tmp_path: Path
):
    base = folders["tiny-llama"]
    kept(*adapted(base, LORA), base, tmp_path / "run" / "adapter")
    for place in (tmp_path / "run", tmp_path / "run" / "adapter"):
        with pytest.raises(CheckpointNotFound, match="holds an adapter, not a model; give"):
            griffin.load(place)
