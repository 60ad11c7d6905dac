"""A Hub on 127.0.0.1 over a folder of repositories (OWNER/NAME/files), as far as huggingface_hub asks for one.

Each repository has one commit and the branch `main`. Large files are known by their ending, not by their size. What it
was asked stands in `asked`; the sets and maps below make it misbehave.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from urllib.parse import unquote, urlsplit

from waiting import WITHIN_S

LARGE = (".safetensors", ".bin", ".gguf")
TOKEN = "hf_tokenofsomebodywhohasaccepted"


class FakeHub:
    """`with FakeHub(folder) as hub:` serves it at `hub.endpoint`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, str]] = []  # (GET or HEAD, path, Range)
        self.gated: set[str] = set()  # repositories whose files want TOKEN
        self.corrupt: set[str] = set()  # files whose first byte is wrong when they are sent
        self.cut_once: dict[str, int] = {}  # file -> bytes after which the connection is dropped, once
        self.stall: dict[str, int] = {}  # file -> bytes after which nothing more comes, until `resume` is set
        self.stalled, self.resume = threading.Event(), threading.Event()
        self.claimed_size: dict[str, int] = {}  # file -> the size that the listing gives
        self.failing = 0  # the status of every answer, 0 for none
        self.pace_s = 0.0  # the pause after each block of 64 KiB

    def __enter__(self) -> FakeHub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.resume.set()
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repository: str) -> str:
        """The one commit's name: 40 hexadecimal digits."""
        return hashlib.sha1(repository.encode()).hexdigest()

    def sent(self, file: str) -> list[str]:
        """The Range ("" for none) of each GET of `file`."""
        return [asked_range for method, path, asked_range in self.asked if method == "GET" and path.endswith(file)]

    def listing(self, repository: str) -> list[dict[str, object]]:
        """Name, size and hashes of each file, in the words of the model-info call."""
        root, rows = self.folder / repository, []
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            name, content = path.relative_to(root).as_posix(), path.read_bytes()
            size = self.claimed_size.get(name, len(content))
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            row: dict[str, object] = {"rfilename": name, "size": size, "blobId": git}
            if name.endswith(LARGE):
                row["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
            rows.append(row)
        return rows


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if self.hub.failing:
            return self._refuse(self.hub.failing, "", "out of order")
        if info := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self._checked(*info.groups(), self._info)
        if tree := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            return self._checked(*tree.groups(), self._tree)
        if file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._checked(file[1], file[2], lambda repository: self._file(repository, file[3]))
        return self._refuse(404, "", "no such page")

    def _checked(self, repository: str, revision: str, answer) -> None:
        if not (self.hub.folder / repository).is_dir():
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if revision not in ("main", self.hub.commit(repository)):
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return answer(repository)

    def _info(self, repository: str) -> None:
        files = self.hub.listing(repository)
        self._json({"id": repository, "sha": self.hub.commit(repository), "siblings": files})

    def _tree(self, repository: str) -> None:
        rows = []
        for file in self.hub.listing(repository):
            row = {"type": "file", "path": file["rfilename"], "size": file["size"], "oid": file["blobId"]}
            if lfs := file.get("lfs"):
                row["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 134}
            rows.append(row)
        self._json(rows)

    def _file(self, repository: str, name: str) -> None:
        if repository in self.hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            known = "Authorization" in self.headers
            return self._refuse(403 if known else 401, "GatedRepo", f"Access to model {repository} is restricted.")
        path = self.hub.folder / repository / name
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found")
        content = path.read_bytes()
        etag = (
            hashlib.sha256(content).hexdigest()
            if name.endswith(LARGE)
            else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        )
        if name in self.hub.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("X-Repo-Commit", self.hub.commit(repository))
        self.send_header("ETag", f'"{etag}"')
        if name.endswith(LARGE):
            self.send_header("X-Linked-Etag", f'"{etag}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self._send(name, content[start:])
        return None

    def _send(self, name: str, content: bytes) -> None:
        cut = self.hub.cut_once.pop(name, None)
        stall = self.hub.stall.get(name)
        try:
            sent = content[: len(content) if cut is None and stall is None else cut or stall]
            step = 2**16 if self.hub.pace_s else len(sent) or 1
            for start in range(0, len(sent), step):
                self.wfile.write(sent[start : start + step])
                sleep(self.hub.pace_s)
            if stall is not None:
                self.wfile.flush()
                self.hub.stalled.set()
                self.hub.resume.wait(WITHIN_S)
        except ConnectionError:  # the other side was killed
            pass
        self.close_connection = cut is not None or stall is not None

    def _json(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()
