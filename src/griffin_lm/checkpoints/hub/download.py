"""Fetching files so that nothing which came is fetched twice, however a run ended.

huggingface_hub 2.4 writes to a file of the process and deletes it when the process fails, so a
download killed at 90 % starts over. Here each content goes to HASH.incomplete in its cache, is held
against the hash when it is whole, and then gets its name; the library then links it in.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from ...errors import HubError
from .cache import blob, partial, root, snapshot_folder, storage
from .client import AGAIN, Listing, RemoteFile, damaged, endpoint, explain, settings, transient

CHUNK = 1 << 20  # bytes hashed at a time
ATTEMPTS = 5  # in a row without a new byte
PAUSE = 1.0  # seconds before the second attempt; doubled every time
AT_ONCE = 4  # files fetched side by side

Progress = Callable[[int, int], None]


class _Count:
    """Bytes that are here, summed over threads and told to one listener, of one commit."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.progress, self.done = total, progress, 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def add(self, bytes_: int) -> None:
        with self._lock:
            self.done += bytes_
            self.progress(min(self.done, self.total), self.total)


def here(listing: Listing, name: str) -> bool:
    """Whether a file is in the cache, whole, under its name."""
    try:
        path = snapshot_folder(listing.hub, listing.commit) / name
        return path.stat().st_size == listing.files[name].size
    except OSError:
        return False


def bytes_here(listing: Listing, name: str) -> int:
    """How many bytes of a file need not be fetched again."""
    file = listing.files[name]
    if here(listing, name) or (file.etag and _size(blob(listing.hub, file)) == file.size):
        return file.size
    return min(_size(partial(listing.hub, file)), file.size) if file.etag else 0


def download(listing: Listing, names: Iterable[str], progress: Progress) -> None:
    """Fetches these files into the cache and links them into the snapshot.

    progress: called with (bytes here, bytes in all), those of earlier runs included. Raises what
    `explain` makes of errors; what came so far stays, and the next call asks for the rest only.
    """
    names = [name for name in names if not here(listing, name)]
    count = _Count(sum(listing.files[name].size for name in names), progress)
    largest_first = sorted(names, key=lambda name: -listing.files[name].size)
    pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="griffin-hub")
    try:
        jobs: list[Future[None]] = [
            pool.submit(_fetch, listing, listing.files[name], count) for name in largest_first
        ]
        while True:  # short waits, so that Ctrl-C is heard on every system
            done, left = wait(jobs, timeout=0.2, return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()
            if not left:
                break
    finally:
        count.stop.set()
        pool.shutdown(cancel_futures=True)


def _fetch(listing: Listing, file: RemoteFile, count: _Count) -> None:
    hub = listing.hub
    try:
        if file.etag:
            _content(listing, file, count)
        _link(listing, file)
    except Exception as error:
        raise explain(error, hub, f"fetch {file.name} of") from error
    if not file.etag:  # a mirror that tells no hashes: the library fetched it
        count.add(file.size)


def _link(listing: Listing, file: RemoteFile) -> None:
    """The library's own way to put a content under its name; it fetches what it does not find."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        listing.hub.repo,
        file.name,
        revision=listing.commit,
        endpoint=endpoint(),
        cache_dir=root(),
        library_name="griffin-lm",
        etag_timeout=settings().HF_HUB_ETAG_TIMEOUT,
    )


def _content(listing: Listing, file: RemoteFile, count: _Count) -> None:
    """The whole content in blobs/, checked; one process at a time."""
    from huggingface_hub.utils import WeakFileLock

    hub = listing.hub
    final, part = blob(hub, file), partial(hub, file)
    lock = root() / ".locks" / storage(hub).name / f"{file.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if _size(final) == file.size:
            count.add(file.size)
            return
        began_with = _size(part)
        if began_with > file.size:
            part.unlink()
            began_with = 0
        count.add(began_with)
        _receive(listing, file, part, count)
        fault = _fault(part, file)
        if fault and began_with:  # the old part may be the culprit: once more, from nothing
            part.unlink()
            count.add(-file.size)
            _receive(listing, file, part, count)
            fault = _fault(part, file)
        if fault:
            part.unlink(missing_ok=True)
            raise damaged(hub, file.name, fault)
        part.replace(final)


def _receive(listing: Listing, file: RemoteFile, part: Path, count: _Count) -> None:
    """Fills the file up to its size, trying again where that may help."""
    failures = 0
    part.touch()
    while (before := _size(part)) < file.size:
        try:
            _stream(listing, file, part, count)
            if _size(part) == before:
                raise HubError(f"{endpoint()} sent nothing of {file.name}; {AGAIN}")
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", None) == 416:
                part.unlink()
                told = f"the server has only {before} bytes of {file.size}"
                raise damaged(listing.hub, file.name, told) from error
            failures = 1 if _size(part) > before else failures + 1
            if failures >= ATTEMPTS or not transient(error):
                raise
            time.sleep(PAUSE * 2 ** (failures - 1))


def _stream(listing: Listing, file: RemoteFile, part: Path, count: _Count) -> None:
    """One request for what is missing, written as it comes, each chunk at once on the disk's side.

    The address is that of the hub, never the signed one behind it, which a later attempt would find
    expired; the HTTP library drops the token where the hub redirects to another host.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    from ... import __version__

    url = hf_hub_url(listing.hub.repo, file.name, revision=listing.commit, endpoint=endpoint())
    headers = build_hf_headers(library_name="griffin-lm", library_version=__version__)
    headers["Accept-Encoding"] = "identity"  # ranges count the file's own bytes
    begin = _size(part)
    if begin:
        headers["Range"] = f"bytes={begin}-"
    timeout = settings().HF_HUB_DOWNLOAD_TIMEOUT
    with (
        get_session().stream("GET", url, headers=headers, timeout=timeout) as response,
        open(part, "r+b", buffering=0) as out,
    ):
        hf_raise_for_status(response)
        if begin and response.status_code != 206:  # the whole file, whatever was asked
            out.truncate(0)
            count.add(-begin)
            begin = 0
        out.seek(begin)
        for chunk in response.iter_bytes():  # as they come: a cut loses nothing that came
            if count.stop.is_set():
                raise HubError(f"stopped; {AGAIN}")
            chunk = chunk[: file.size - out.tell() + 1]  # one byte too many shows as damage
            written = 0
            while written < len(chunk):
                written += out.write(chunk[written:]) or 0
            count.add(len(chunk))
            if out.tell() > file.size:
                return


def _fault(part: Path, file: RemoteFile) -> str | None:
    """What is wrong with a whole file; None where its size and hash are those told."""
    size = _size(part)
    if size != file.size:
        return f"it has {size} bytes{' or more' if size > file.size else ''} instead of {file.size}"
    digest = hashlib.sha256() if len(file.etag) == 64 else hashlib.sha1(b"blob %d\0" % size)
    with open(part, "rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != file.etag:
        return f"its checksum is {digest.hexdigest()[:12]}… instead of {file.etag[:12]}…"
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
