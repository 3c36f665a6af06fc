"""Talking to the hub through huggingface_hub: settings, listings, and its errors in our words.

Nothing here is called unless a hub id was named. The library's telemetry is off: no word of what is
installed or who calls goes into its requests, and it asks for nothing besides what we ask for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import CheckpointCorrupt, CheckpointNotFound, GriffinError, HubError
from .names import ALIASES, HubId, near

if TYPE_CHECKING:
    from huggingface_hub import HfApi

AGAIN = "run the same command again: it goes on where it stopped"
_BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its size, the name of its content in the cache, and its hash.

    etag: sha256 of a large file, git's sha1 of a small one (with a header), which is also the name
    under which the cache keeps the content.
    """

    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit."""

    hub: HubId
    commit: str
    files: Mapping[str, RemoteFile]


def settings() -> Any:
    """huggingface_hub's constants: HF_HOME, HF_ENDPOINT and the like as it understood them."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    return constants


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or https://huggingface.co."""
    return str(settings().ENDPOINT).rstrip("/")


def is_offline(offline: bool | None = None) -> bool:
    """Whether the network must not be used: said by the caller, or by HF_HUB_OFFLINE."""
    return bool(offline) or bool(settings().HF_HUB_OFFLINE)


def api() -> "HfApi":
    """The library's client, which sends HF_TOKEN or the stored login."""
    from huggingface_hub import HfApi

    from ... import __version__

    return HfApi(endpoint=endpoint(), library_name="griffin-lm", library_version=__version__)


def listing(hub: HubId) -> Listing:
    """What the repository holds now. One request; raises `explain`'s errors."""
    constants = settings()
    try:
        info = api().model_info(
            hub.repo,
            revision=hub.revision,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            files_metadata=True,
        )
        commit = info.sha or ""
        files = {
            row.rfilename: RemoteFile(
                row.rfilename,
                row.lfs.size if row.lfs else row.size or 0,
                row.lfs.sha256 if row.lfs else row.blob_id or "",
            )
            for row in info.siblings or ()
        }
    except Exception as error:
        raise explain(error, hub, "list the files of") from error
    if not HubId(hub.repo, commit).pinned:
        raise HubError(f"{endpoint()} gave no commit for {hub}; is it a hub? check HF_ENDPOINT")
    safe = {name: file for name, file in files.items() if _harmless(name)}
    return Listing(hub, commit, {name: _known(hub, commit, file) for name, file in safe.items()})


def _harmless(name: str) -> bool:
    """Whether a name stays inside a folder, on any system."""
    return not name.startswith("/") and "\\" not in name and ".." not in name.split("/")


def _known(hub: HubId, commit: str, file: RemoteFile) -> RemoteFile:
    """The file as listed, its hash only if it is one: it becomes a file's name."""
    is_hash = len(file.etag) in (40, 64) and not set(file.etag) - set("0123456789abcdef")
    return file if is_hash else RemoteFile(file.name, file.size, "")


def explain(error: Exception, hub: HubId, doing: str) -> GriffinError:
    """An error of the library or of the system, in our words: what, where, what to do next."""
    from huggingface_hub import errors

    if isinstance(error, GriffinError):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    what = f"could not {doing} {hub}"
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointNotFound(
            f"{hub.repo} has no branch, tag or commit {hub.revision!r}; see {page(hub)}/commits"
        )
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return _gated(hub, status)
    if status == 401 and "invalid" in str(error).lower():
        return HubError(
            f"{what}: the hub does not accept your token; log in again (`hf auth login`) or "
            "correct HF_TOKEN; the bundled model 'fledgling' needs none"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return _nothing_there(hub, status)
    if isinstance(error, errors.HfHubHTTPError):
        when = "later: the hub is busy" if status in _BUSY else "later, or another HF_ENDPOINT"
        return HubError(f"{what}: {endpoint()} answered {status}; try again {when}; {AGAIN}")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubError(f"{what}: HF_HUB_OFFLINE forbids the network; unset it, then {AGAIN}")
    if isinstance(error, (http_error(), errors.LocalEntryNotFoundError)):
        return HubError(f"{what}: {_network(error)}; {AGAIN}")
    if isinstance(error, OSError):
        return disk(error, what)
    return HubError(f"{what}: {type(error).__name__}: {str(error)[:300]}; {AGAIN}")


def page(hub: HubId) -> str:
    """The repository's page, where its licence is shown and accepted."""
    return f"{endpoint()}/{hub.repo}"


def http_error() -> type[Exception]:
    """The root of the errors of the HTTP library below huggingface_hub, whichever that is."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def transient(error: Exception) -> bool:
    """Whether trying again in a moment may help: a cut, a timeout, a busy server."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in _BUSY
    return isinstance(error, http_error())


def disk(error: OSError, what: str) -> HubError:
    """An error of the disk or its permissions."""
    from errno import EDQUOT, ENOSPC

    cache = Path(settings().HF_HUB_CACHE)
    if error.errno in (ENOSPC, EDQUOT):
        return HubError(
            f"{what}: the disk is full at {cache}; make room (`hf cache ls` shows what lies there) "
            f"or put the cache elsewhere with HF_HOME, then {AGAIN}"
        )
    return HubError(
        f"{what}: {error.strerror or error} ({error.filename or cache}); make {cache} writable or "
        f"choose another place with HF_HOME, then {AGAIN}"
    )


def _network(error: Exception) -> str:
    name = type(error).__name__
    if "Timeout" in name:
        seconds = settings().HF_HUB_DOWNLOAD_TIMEOUT
        return (
            f"{endpoint()} did not answer in time ({seconds} s; HF_HUB_DOWNLOAD_TIMEOUT and "
            "HF_HUB_ETAG_TIMEOUT set more)"
        )
    if "Connect" in name or "Proxy" in name:
        return (
            f"no connection to {endpoint()} ({str(error)[:120]}); check the network, the proxy and "
            "HF_ENDPOINT"
        )
    return f"the connection to {endpoint()} broke ({name}: {str(error)[:120]})"


def _gated(hub: HubId, status: int | None) -> HubError:
    login = "log in (`hf auth login`, or a token in HF_TOKEN)"
    if status == 401:
        next_ = f"read and accept it at {page(hub)}, then {login}"
    else:
        next_ = (
            f"read and accept it at {page(hub)} with the account of your token (a fine-grained "
            f"token also needs access to gated repositories; to change account: {login})"
        )
    return HubError(
        f"{hub} stands behind a licence ({status or 'gated'}): {next_}; then run the same command "
        "again. The bundled model 'fledgling' needs no licence and no network"
    )


def _nothing_there(hub: HubId, status: int | None) -> GriffinError:
    like = near(hub.repo)
    meant = f"; did you mean {' or '.join(like)}?" if like else ""
    if status == 401:
        return HubError(
            f"{endpoint()} shows no {hub.repo} to someone who is not logged in (401): if it exists "
            f"it is private or gated; check the name{meant or ';'} accept its licence at "
            f"{page(hub)} and log in (`hf auth login`, or a token in HF_TOKEN). The bundled model "
            "'fledgling' needs neither"
        )
    return CheckpointNotFound(
        f"there is no {hub.repo} at {endpoint()}, and no such path here{meant}; the aliases are "
        f"{', '.join(ALIASES)}; a private repository needs `hf auth login`"
    )


def damaged(hub: HubId, name: str, told: str) -> CheckpointCorrupt:
    """A file that came whole, and is not what the hub says it is."""
    return CheckpointCorrupt(
        f"{name} of {hub} came damaged: {told}; it was deleted: run the same command again, and it "
        "is fetched anew; should it happen twice, a proxy or mirror alters files: check HF_ENDPOINT"
    )
