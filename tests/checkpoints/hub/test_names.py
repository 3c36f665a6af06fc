"""What counts as a name on the hub, and what is answered to a misspelt one."""

import pytest

import griffin_lm as griffin
from griffin_lm.checkpoints.hub import ALIASES, HubId, near, parse, preset_of


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("recurrentgemma-2b", HubId("google/recurrentgemma-2b")),
        ("recurrentgemma-9b-it", HubId("google/recurrentgemma-9b-it")),
        ("gemma-7b-it", HubId("google/gemma-7b-it")),
        ("llama-3-8b-instruct", HubId("meta-llama/Meta-Llama-3-8B-Instruct")),
        ("llama-3.2-1b@v1", HubId("meta-llama/Llama-3.2-1B", "v1")),
        ("mamba-2.8b", HubId("state-spaces/mamba-2.8b-hf")),
        ("recurrentgemma-2b@v1", HubId("google/recurrentgemma-2b", "v1")),
        ("google/recurrentgemma-2b-pytorch", HubId("google/recurrentgemma-2b-pytorch")),
        ("someone/My_model.v2@refs/pr/3", HubId("someone/My_model.v2", "refs/pr/3")),
    ],
)
def test_an_alias_or_an_id_is_a_name_on_the_hub(name: str, hub: HubId) -> None:
    assert parse(name) == hub


@pytest.mark.parametrize(
    "name",
    [
        *("nowhere", "./a/b", "/a/b", "~/a", "a/b/c", "a/", "/b", "", "../b", "a/..", "a--b/c"),
        *("a/b@", "a/b@../../etc", "a/b@/etc", "a/b c", "a/b.git", "a\\b/c", "a/b\n"),
    ],
)
def test_what_could_be_a_path_or_an_attack_is_none(name: str) -> None:
    assert parse(name) is None


def test_every_published_model_has_an_alias() -> None:
    google = ("recurrentgemma-2b", "recurrentgemma-9b", "gemma-2b", "gemma-7b")
    mamba = ("mamba-130m", "mamba-370m", "mamba-790m", "mamba-1.4b", "mamba-2.8b")
    wanted = {f"{name}{kind}": f"google/{name}{kind}" for name in google for kind in ("", "-it")}
    wanted |= {name: f"state-spaces/{name}-hf" for name in mamba}
    wanted |= {
        "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
        "llama-3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
        "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
        "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
        "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
        "llama-3.2-1b-instruct": "meta-llama/Llama-3.2-1B-Instruct",
        "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
        "llama-3.2-3b-instruct": "meta-llama/Llama-3.2-3B-Instruct",
    }
    assert wanted == ALIASES


def test_every_alias_has_a_preset_of_its_own() -> None:
    for alias, repo in ALIASES.items():
        preset = alias.removesuffix("-it").removesuffix("-instruct")
        assert preset_of(HubId(repo)) == griffin.PRESETS[preset], alias


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("recurentgemma-2b", "recurrentgemma-2b"),
        ("google/recurrent-gemma-9b-it", "recurrentgemma-9b-it"),
        ("google/recurrentgemma-2b-torch", "google/recurrentgemma-2b-pytorch"),
    ],
)
def test_a_misspelt_name_is_near_the_right_one(misspelt: str, meant: str) -> None:
    assert meant in near(misspelt)


def test_a_name_that_resembles_nothing_has_nothing_near() -> None:
    assert near("something/else-entirely") == []


def test_a_commit_is_told_from_a_branch() -> None:
    assert HubId("a/b", "0123456789" * 4).pinned
    assert not HubId("a/b", "main").pinned
    assert str(HubId("a/b", "v1")) == "a/b@v1" and str(HubId("a/b")) == "a/b"
