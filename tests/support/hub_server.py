"""A Hugging Face hub on this machine: what `huggingface_hub` asks to download, to list, to make and to commit."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from support.servers import running

LARGE = (".safetensors", ".pt", ".bin", ".png")  # stored by SHA-256, the rest by git's hash
TOKEN = "hf_right"


class HubServer(ThreadingHTTPServer):
    """Holds repositories and remembers what was asked.

    Attributes:
      repositories: content by file, by revision ("main" or a commit), by repository.
      private: repositories that only `TOKEN` may see.
      answers: (status, content) that takes the place of the right answer, by path.
      damaged: content that is sent for a file in place of the right one, by path.
      requests: (method, path, Range header or None) of every request.
      commits: for each commit its message, files, and whether the repository was to be private.
      break_after: bytes after which the next transfer breaks off, or None.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private, self.answers, self.damaged, self.stored = set(), {}, {}, {}
        self.requests, self.commits, self.break_after = [], [], None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def add(self, repository: str, files: dict[str, bytes]) -> str:
        """Publishes files in the place of those that were there; returns the commit."""
        content = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, sort_keys=True)
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.repositories.setdefault(repository, {}).update({"main": files, commit: files})
        return commit

    def commit_of(self, repository: str, revision: str) -> str:
        """The commit that a revision means."""
        revisions = self.repositories[repository]
        return next(name for name in revisions if len(name) == 40 and revisions[name] == revisions[revision])


def digest(name: str, content: bytes) -> str:
    """The hash by which the hub knows a file."""
    return hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else git_hash(content)


def git_hash(content: bytes) -> str:
    """As `git hash-object` prints it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._get(with_content=False)

    def do_GET(self):
        self._get(with_content=True)

    def _get(self, *, with_content: bool):
        path, parts = self._begin()
        if path in self.server.answers:
            status, content = self.server.answers[path]
            return self._send(status, content)
        if "resolve" in parts:
            repository, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            files = self._files(repository, revision)
            return files is not None and self._file(repository, revision, name, with_content=with_content)
        if parts[:2] == ["api", "models"]:
            repository, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            files = self._files(repository, revision)
            if files is None:
                return None
            commit = self.server.commit_of(repository, revision)
            return self._json(_tree(files) if "tree" in parts else _info(repository, commit, files))
        return self._send(404, b"")

    def _file(self, repository: str, revision: str, name: str, *, with_content: bool):
        commit, files = self.server.commit_of(repository, revision), self.server.repositories[repository][revision]
        if name not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content, etag = files[name], digest(name, files[name])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if not with_content:
            return self._send(200, content, headers)
        content = self.server.damaged.get(f"{repository}/{name}", content)
        asked = self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        return self._send(206 if first else 200, content[first:], headers)

    def do_POST(self):
        path, parts = self._begin()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path in self.server.answers:
            status, content = self.server.answers[path]
            return self._send(status, content)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, b'{"error": "Invalid username or password."}')
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked['organization']}/{asked['name']}"
            if repository in self.server.repositories:
                answer = {"error": "You already created this model repo", "url": f"{self.server.url}/{repository}"}
                return self._send(409, json.dumps(answer).encode())
            self.server.add(repository, {})
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.private.add(repository)
            return self._json({"url": f"{self.server.url}/{repository}"})
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            target = {"upload": {"href": f"{self.server.url}/store"}}
            return self._json({"objects": [each | {"actions": target} for each in objects]})
        repository, revision = "/".join(parts[2:4]), parts[-1]
        if "branch" in parts:
            self.server.repositories[repository][revision] = self.server.repositories[repository]["main"]
            return self._json({})
        if "preupload" in parts:
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in names}
            return self._json(
                {"files": [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in names]}
            )
        return self._commit(repository, revision, [json.loads(line) for line in body.splitlines()])

    def _commit(self, repository: str, revision: str, lines: list[dict]):
        files = dict(self.server.repositories[repository][revision])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
        before = self.server.repositories[repository]["main"]
        commit = self.server.add(repository, files)
        if revision != "main":
            self.server.repositories[repository] |= {"main": before, revision: files}
        self.server.commits.append((lines[0]["value"]["summary"], files, repository in self.server.private))
        return self._json(
            {"commitUrl": f"{self.server.url}/{repository}/commit/{commit}", "commitOid": commit, "success": True}
        )

    def do_PUT(self):
        self._begin()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.stored[hashlib.sha256(content).hexdigest()] = content
        self._send(200, b"")

    def _begin(self) -> tuple[str, list[str]]:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        return path, path.strip("/").split("/")

    def _files(self, repository: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision; None after an answer that there is none."""
        hidden = repository in self.server.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        revisions = None if hidden else self.server.repositories.get(repository)
        if revisions is None:
            self._send(401 if hidden else 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in revisions:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return revisions[revision]
        return None

    def _json(self, content: object):
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = self.server.break_after if status in (200, 206) and self.command == "GET" else None
        self.wfile.write(content[:stop])
        if stop is not None:
            self.server.break_after, self.close_connection = None, True

    def log_message(self, *_):
        """Nothing on the terminal."""


def _info(repository: str, commit: str, files: dict[str, bytes]) -> dict:
    return {"id": repository, "sha": commit, "siblings": [_sibling(name, files[name]) for name in files]}


def _sibling(name: str, content: bytes) -> dict:
    sibling = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
    lfs = {"size": len(content), "sha256": digest(name, content), "pointerSize": 134}
    return sibling | ({"lfs": lfs} if name.endswith(LARGE) else {})


def _tree(files: dict[str, bytes]) -> list[dict]:
    return [
        {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
        for name, content in files.items()
    ]


@contextlib.contextmanager
def hub_server() -> Iterator[HubServer]:
    """A running hub, gone afterwards."""
    with running(HubServer()) as server:
        yield server


def use_hub(patch: pytest.MonkeyPatch, url: str, cache: object, *, token: str | None = None) -> None:
    """Lets huggingface_hub ask this hub and keep its cache in a folder until the test ends."""
    constants = "huggingface_hub.constants"
    patch.setattr(f"{constants}.ENDPOINT", url)
    patch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    patch.setattr(f"{constants}.HF_TOKEN_PATH", f"{cache}/no_token")
    patch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)
    if token is None:
        patch.delenv("HF_TOKEN", raising=False)
    else:
        patch.setenv("HF_TOKEN", token)
