"""A hub of one's own: the part of the Hugging Face Hub's HTTP interface that pushing and loading use, in a thread.

Repositories live in memory, each a history of commits. Small files come inside a commit, weights by Git LFS, as on the
hub. Whoever writes needs a token; what does not exist is answered with the hub's error codes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_the_test"
_BY_LFS = (".safetensors", ".bin")
_NAME = r"(?P<repo>[\w.-]+/[\w.-]+)"


def git_oid(content: bytes) -> str:
    """Name of a file's content in Git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """Trees by commit, and the commit of each branch."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        names = {name: git_oid(content) for name, content in files.items()}
        sha = hashlib.sha1(json.dumps([len(self.commits), names]).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None


@dataclass
class FakeHub:
    """What the server knows."""

    url: str = ""
    storage: str = ""
    """Another host, as far as a client can tell, with the objects of Git LFS."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Of Git LFS, by their SHA-256."""

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repositories[repo]
        return found.commits[found.branches.get(revision, revision)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the receipt of its head
    hub: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        for known, pattern, function, writes in _ROUTES:
            match = re.fullmatch(pattern, path) if known == method else None
            if match is None:
                continue
            if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._error(401, "Unauthorized")
            else:
                function(self, **match.groupdict())
            return
        self._error(404, f"NoSuchRoute {method} {path}")

    # --------------------------------------------------------------------------------------------------------- writing

    def create(self) -> None:
        given = json.loads(self.body)
        repo = f"{given['organization']}/{given['name']}"
        exists = repo in self.hub.repositories
        if not exists:
            self.hub.repositories[repo] = Repository()
            self.hub.repositories[repo].commit("main", {".gitattributes": b""})
        self._json({"url": f"{self.hub.url}/{repo}", "id": repo}, 409 if exists else 200)

    def branch(self, repo: str, revision: str) -> None:
        branches = self.hub.repositories[repo].branches
        exists = revision in branches
        branches.setdefault(revision, branches["main"])
        self._json({}, 409 if exists else 200)

    def check_card(self) -> None:
        """Say what the hub would refuse: metadata that is no YAML mapping."""
        given = json.loads(self.body)["content"]
        block = re.match(r"---\n(.*?)\n---\n", given, re.DOTALL)
        errors = []
        if block and not isinstance(yaml.safe_load(block[1]), dict):
            errors = [{"message": "metadata is no mapping"}]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, repo: str, revision: str) -> None:
        there = self._tree(repo, revision)
        if there is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_BY_LFS) else "regular",
                "shouldIgnore": False,
                "oid": git_oid(there[1][file["path"]]) if file["path"] in there[1] else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def lfs_batch(self, repo: str) -> None:
        objects = []
        for one in json.loads(self.body)["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.hub.storage}/lfs/{one['oid']}"}}}
            objects.append({**one, **({} if one["oid"] in self.hub.objects else upload)})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._error(400, "wrong checksum")
            return
        self.hub.objects[oid] = self.body
        self._json({})

    def commit(self, repo: str, revision: str) -> None:
        there = self._tree(repo, revision)
        if there is None:
            return
        files = dict(there[1])
        for line in self.body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        sha = self.hub.repositories[repo].commit(revision, files)
        url = f"{self.hub.url}/{repo}/commit/{sha}"
        self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    # --------------------------------------------------------------------------------------------------------- reading

    def info(self, repo: str, revision: str = "main") -> None:
        there = self._tree(repo, revision)
        if there is not None:
            siblings = [{"rfilename": name} for name in there[1]]
            self._json({"id": repo, "modelId": repo, "sha": there[0], "siblings": siblings, "tags": []})

    def tree(self, repo: str, revision: str, folder: str | None = None) -> None:
        there = self._tree(repo, revision)
        if there is None:
            return
        inside = "" if folder is None else f"{folder}/"
        found = [
            {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}
            for name, content in there[1].items()
            if name.startswith(inside)
        ]
        if inside and not found:
            self._error(404, "EntryNotFound", commit=there[0])
        else:
            self._json(found)

    def resolve(self, repo: str, revision: str, file: str) -> None:
        there = self._tree(repo, revision)
        if there is None:
            return
        sha, files = there
        if file not in files:
            self._error(404, "EntryNotFound", commit=sha)
            return
        content, headers = files[file], {"X-Repo-Commit": sha}
        if not file.endswith(_BY_LFS):
            self._send(200, content, {**headers, "ETag": f'"{git_oid(content)}"'})
            return
        oid = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        self._send(302, b"", {**headers, **linked, "Location": f"{self.hub.storage}/lfs/{oid}"})

    def lfs_fetch(self, oid: str) -> None:
        self._send(200, self.hub.objects[oid], {"ETag": f'"{oid}"'})

    # --------------------------------------------------------------------------------------------------------- answers

    def _tree(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and the files; an answer is sent where there are none."""
        found = self.hub.repositories.get(repo)
        if found is None:
            self._error(404, "RepoNotFound")
            return None
        sha = found.find(revision)
        if sha is None:
            self._error(404, "RevisionNotFound")
            return None
        return sha, found.commits[sha]

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, commit: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self._send(status, b"", headers if commit is None else {**headers, "X-Repo-Commit": commit})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_REVISION = r"(?P<revision>[^/]+)"
_ROUTES = [
    ("POST", "/api/repos/create", _Handler.create, True),
    ("POST", "/api/validate-yaml", _Handler.check_card, False),
    ("POST", rf"/api/models/{_NAME}/branch/{_REVISION}", _Handler.branch, True),
    ("POST", rf"/api/models/{_NAME}/preupload/{_REVISION}", _Handler.preupload, True),
    ("POST", rf"/api/models/{_NAME}/commit/{_REVISION}", _Handler.commit, True),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch, True),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_store, False),  # the address itself is the permission
    ("GET", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_fetch, False),
    ("GET", rf"/api/models/{_NAME}", _Handler.info, False),
    ("GET", rf"/api/models/{_NAME}/revision/{_REVISION}", _Handler.info, False),
    ("GET", rf"/api/models/{_NAME}/tree/{_REVISION}(?:/(?P<folder>.+))?", _Handler.tree, False),
    ("GET", rf"/{_NAME}/resolve/{_REVISION}/(?P<file>.+)", _Handler.resolve, False),
]


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub on a free port of this machine, as long as the block lasts."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url, hub.storage = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
