"""Names of models on the hub: aliases, and "owner/name" with or without "@revision"."""

import difflib
import re
from dataclasses import dataclass

_RECURRENT_GEMMA = {
    f"recurrentgemma-{size}{kind}": f"google/recurrentgemma-{size}{kind}"
    for size in ("2b", "9b")
    for kind in ("", "-it")
}
_GEMMA = {
    f"gemma-{size}{kind}": f"google/gemma-{size}{kind}"
    for size in ("2b", "7b")
    for kind in ("", "-it")
}
_LLAMA = {
    f"{alias}{kind}": f"meta-llama/{repo}{kind.title()}"
    for alias, repo in (
        ("llama-3-8b", "Meta-Llama-3-8B"),
        ("llama-3.1-8b", "Llama-3.1-8B"),
        ("llama-3.2-1b", "Llama-3.2-1B"),
        ("llama-3.2-3b", "Llama-3.2-3B"),
    )
    for kind in ("", "-instruct")
}
_MAMBA = {
    f"mamba-{size}": f"state-spaces/mamba-{size}-hf"
    for size in ("130m", "370m", "790m", "1.4b", "2.8b")
}
# Published weights by the name of their configuration (docs/hub.md).
ALIASES: dict[str, str] = _RECURRENT_GEMMA | _GEMMA | _LLAMA | _MAMBA
# DeepMind's own layouts of the same models; known so that a misspelt name can be answered
_DEEPMIND = [
    f"{repo.removesuffix('-it')}-{layout}{'-it' if repo.endswith('-it') else ''}"
    for repo in _RECURRENT_GEMMA.values()
    for layout in ("pytorch", "flax")
]
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO = re.compile(f"{_PART}/{_PART}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubId:
    """A repository on the hub, and the branch, tag or commit of it."""

    repo: str
    revision: str = "main"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


def parse(name: str) -> HubId | None:
    """What `name` means on the hub; None where it can be neither an alias nor an id.

    An id has one slash and the hub's letters; "@revision" may follow an alias too.
    """
    repo, at, revision = name.partition("@")
    repo = ALIASES.get(repo, repo)
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        return None
    if at and (not revision or revision.startswith(("/", ".")) or ".." in revision):
        return None
    return HubId(repo, revision) if at else HubId(repo)


def near(name: str) -> list[str]:
    """Known aliases and ids that look like `name`, the likeliest first."""
    name = name.partition("@")[0]
    last = name.rpartition("/")[2]
    known = [*ALIASES, *_DEEPMIND]
    by_end = {known_name.rpartition("/")[2].lower(): known_name for known_name in known}
    found = difflib.get_close_matches(last.lower(), by_end, n=3, cutoff=0.75)
    return [by_end[end] for end in found if by_end[end] != name]
