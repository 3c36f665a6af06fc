"""A hub on loopback, as huggingface_hub 2.4 asks one: listings, files by range, doors, and faults.

/api/models/OWNER/NAME/revision/REV?blobs=true   commit, siblings with sizes and hashes
/api/models/OWNER/NAME/tree/REV?recursive=true   the same for snapshot_download
/OWNER/NAME/resolve/REV/FILE                     HEAD and GET; large files redirect to
/cdn/HASH                                        which must never see a token
"""

import hashlib
import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE = 2_000  # bytes from which a file is "LFS": known by its sha256, redirected


def etag(data: bytes) -> str:
    """As the hub has it: sha256 of a large file, git's sha1 of a small one."""
    if len(data) >= LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """A repository, and what is wrong with it.

    gate        None: open; "login": 401 without the right token, 403 with it until `accepted`;
                "hidden": 401 or 404 as for what does not exist
    cut         {file: bytes after which each response breaks off}
    cuts        how many responses break off (after those the whole file comes)
    spoiled     {file: bytes served in place of the true ones}
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    gate: str | None = None
    accepted: bool = False
    cut: dict[str, int] = field(default_factory=dict)
    cuts: int = 1_000
    spoiled: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Request:
    """One request as it came, and how many bytes of body it got."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0

    @property
    def range(self) -> str | None:
        """The bytes asked for, None where the whole."""
        return self.headers.get("range")


class Hub:
    """Serves repositories on a free port until it is closed; keeps every request."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.token = "hf_right"
        self.delay = 0.0  # seconds before any answer
        self.pace = 0.0  # seconds before each 64 kB of a body
        self.busy = 0  # so many requests are answered with 503 first
        self.honours_ranges = True
        self.connections: list[socket.socket] = []
        hub = self

        class Handler(_Handler):
            home = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn(self) -> str:
        """The same server under another name: another host to whoever asks."""
        return f"http://localhost:{self._server.server_port}"

    def of(self, name: str) -> list[Request]:
        """The GETs for the content of a file, whether redirected or not, in order."""
        ends = {etag(repo.files[name]) for repo in self.repos.values() if name in repo.files}
        ends |= {name.rpartition("/")[2]}
        got = [request for request in self.requests if request.method == "GET" and request.sent]
        return [request for request in got if request.path.rpartition("/")[2] in ends]

    def close(self) -> None:
        """Stops at once: later connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:  # kept alive: they would go on being served
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    home: Hub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Remembers the connection."""
        super().setup()
        self.home.connections.append(self.connection)

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Finds what the path means."""
        hub, raw = self.home, urlsplit(self.path).path
        path = unquote(raw)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_ = Request(self.command, path, headers)
        hub.requests.append(self.request_)
        time.sleep(hub.delay)
        if hub.busy > 0:
            hub.busy -= 1
            return self.end(503)
        parts = [unquote(part) for part in raw.strip("/").split("/")]
        if parts[0] == "cdn":
            return self.cdn(parts[1])
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        repo = hub.repos.get(name)
        known = headers.get("authorization") == f"Bearer {hub.token}"
        if "authorization" in headers and not known:
            return self.end(401, message="Invalid credentials in Authorization header")
        if repo is None or (repo.gate == "hidden" and not known):
            return self.end(404 if known else 401, "RepoNotFound", "Repository not found")
        revision = (parts[5:6] or ["main"])[0] if api else parts[3]
        if revision not in (*repo.revisions, repo.commit):
            return self.end(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if api:
            return self.tree(repo) if parts[4] == "tree" else self.info(name, repo)
        if repo.gate == "login" and not (known and repo.accepted):
            told = f"Access to model {name} is restricted"
            return self.end(403 if known else 401, "GatedRepo", told)
        return self.resolve(repo, "/".join(parts[4:]))

    def info(self, name: str, repo: Repo) -> None:
        """The listing, of which the public part of a gated repository is open to all."""
        siblings: list[dict[str, Any]] = []
        for file, data in repo.files.items():
            row: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": etag(data)}
            if len(data) >= LARGE:
                row |= {"blobId": "0" * 40}
                row["lfs"] = {"size": len(data), "sha256": etag(data), "pointerSize": 134}
            siblings.append(row)
        gated = "manual" if repo.gate else False
        self.json({"id": name, "sha": repo.commit, "gated": gated, "siblings": siblings})

    def tree(self, repo: Repo) -> None:
        """The same as huggingface_hub's own snapshot_download asks for it."""
        rows: list[dict[str, Any]] = []
        for file, data in repo.files.items():
            row: dict[str, Any] = {"type": "file", "path": file, "size": len(data)}
            row |= {"oid": etag(data) if len(data) < LARGE else "0" * 40}
            if len(data) >= LARGE:
                row["lfs"] = {"size": len(data), "oid": etag(data), "pointerSize": 134}
            rows.append(row)
        self.json(rows)

    def json(self, value: Any) -> None:
        """An answer of the interface."""
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def resolve(self, repo: Repo, file: str) -> None:
        """A file, or where its content lies."""
        if file not in repo.files:
            return self.end(404, "EntryNotFound", "Entry not found", repo.commit)
        data = repo.files[file]
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{etag(data)}"'}
        if len(data) < LARGE:
            return self.content(repo, file, headers)
        headers |= {"X-Linked-Etag": f'"{etag(data)}"', "X-Linked-Size": str(len(data))}
        self.send_response(302)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Location", f"{self.home.cdn}/cdn/{etag(data)}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def cdn(self, wanted: str) -> None:
        """The content of a large file, for whoever has the address."""
        for repo in self.home.repos.values():
            for file, data in repo.files.items():
                if etag(data) == wanted:
                    return self.content(repo, file, {"ETag": f'"{wanted}"'})
        return self.end(404)

    def content(self, repo: Repo, file: str, headers: dict[str, str]) -> None:
        """The bytes asked for, as far as the repository's faults let them."""
        data = repo.spoiled.get(file, repo.files[file])
        begin, end, asked = 0, len(data), self.request_.range
        if asked and self.home.honours_ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) + 1 if last else end, end)
            if begin >= len(data):
                return self.end(416)
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            self.send_response(206)
        else:
            self.send_response(200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        if file in repo.cut and repo.cuts > 0:
            repo.cuts -= 1
            end = min(begin + repo.cut[file], end)
            self.close_connection = True
        for at in range(begin, end, 65_536):
            time.sleep(self.home.pace)
            piece = data[at : min(at + 65_536, end)]
            try:
                self.wfile.write(piece)
            except OSError:  # whoever asked is gone
                self.close_connection = True
                return
            self.request_.sent += len(piece)

    def end(self, status: int, code: str = "", message: str = "", commit: str = "") -> None:
        """An answer without a body."""
        self.send_response(status)
        for key, value in (
            ("X-Error-Code", code),
            ("X-Error-Message", message),
            ("X-Repo-Commit", commit),
            ("Content-Length", "0"),
        ):
            if value:
                self.send_header(key, value)
        self.end_headers()
