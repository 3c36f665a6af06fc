"""Which files are fetched: one set of weights, what is needed beside it, and nothing else."""

import pytest

from griffin_lm.checkpoints.hub.selection import select
from griffin_lm.errors import CheckpointNotFound

VOCABULARY = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
SHARDS = tuple(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))
INDEX = "model.safetensors.index.json"


def test_safetensors_come_with_config_and_vocabulary_and_no_pickles() -> None:
    names = ["README.md", "config.json", INDEX, *SHARDS, *VOCABULARY, "generation_config.json"]
    waste = ["pytorch_model-00001-of-00002.bin", "model-q4.gguf", ".gitattributes", "2b.pt"]
    found = select("google/recurrentgemma-2b", names + waste)
    assert found.root == "" and found.weights == SHARDS
    assert set(found.small) == {"config.json", INDEX, *VOCABULARY, "generation_config.json"}
    assert "3 files" in found.words and ".pt" in found.words and ".gguf" in found.words


def test_one_whole_file_goes_before_shards_of_the_same() -> None:
    found = select("a/b", ["config.json", "model.safetensors", INDEX, *SHARDS])
    assert found.weights == ("model.safetensors",) and INDEX not in found.small


def test_other_safetensors_beside_are_not_fetched() -> None:
    found = select("a/b", ["config.json", "model.safetensors", "adapter_model.safetensors"])
    assert found.weights == ("model.safetensors",)


def test_a_pt_file_comes_with_the_vocabulary_beside_it() -> None:
    found = select("google/recurrentgemma-2b-pytorch", ["2b.pt", "tokenizer.model", "README.md"])
    assert found.root == "2b.pt" and found.files == ("tokenizer.model", "2b.pt")


@pytest.mark.parametrize(
    ("repo", "file"),
    [
        ("google/recurrentgemma-2b-pytorch", "2b.pt"),
        ("google/recurrentgemma-2b-it-pytorch", "2b-it.pt"),
        ("google/recurrentgemma-9b-pytorch-it", "9b-it.pt"),
    ],
)
def test_of_several_pt_files_the_one_that_the_name_tells(repo: str, file: str) -> None:
    names = ["2b.pt", "2b-it.pt", "9b.pt", "9b-it.pt", "tokenizer.model"]
    assert select(repo, names).root == file


def test_several_pt_files_that_no_name_tells_apart_are_listed() -> None:
    with pytest.raises(CheckpointNotFound, match=r"several .pt files: one.pt, two.pt.*hf download"):
        select("someone/models", ["one.pt", "two.pt"])


@pytest.mark.parametrize(
    "tree",
    [
        ["2b/_METADATA", "2b/manifest.ocdbt", "2b/d/abc", "2b/ocdbt.process_0/d/def"],
        ["2b/checkpoint", "2b/params.embedder.input_embedding/.zarray", "2b/params.x/0.0"],
        ["2b/params.embedder/.zarray", "2b/params.embedder/0.0"],
    ],
    ids=["ocdbt", "zarr", "zarr without its file"],
)
def test_an_orbax_folder_comes_whole_with_the_vocabulary_above_it(tree: list[str]) -> None:
    found = select("google/recurrentgemma-2b-flax", [*tree, "tokenizer.model", "README.md"])
    assert found.root == "2b" and set(found.weights) == set(tree)
    assert found.small == ("tokenizer.model",)


def test_safetensors_go_before_pt_and_orbax() -> None:
    found = select("a/b", ["2b.pt", "2b/_METADATA", "model.safetensors", "config.json"])
    assert found.weights == ("model.safetensors",)
    assert "Orbax" in found.words and ".pt" in found.words


def test_a_repository_of_pickles_is_refused() -> None:
    with pytest.raises(CheckpointNotFound, match=r"pytorch_model.bin.*never read"):
        select("a/b", ["config.json", "pytorch_model.bin", "model.gguf"])
