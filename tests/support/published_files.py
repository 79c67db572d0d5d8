"""A server of published files on this machine, with byte ranges and broken transfers, for the tests of fetching."""

import contextlib
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.servers import running


class FileServer(ThreadingHTTPServer):
    """Serves `files` (path without query to content) and remembers what was asked.

    Attributes:
      requests: (path, Range header or None) of every request.
      break_after: bytes after which the next transfer breaks off, or None.
      ranges: whether byte ranges are understood.
      pause: seconds between two bytes of an answer.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.requests, self.break_after, self.ranges, self.pause = {}, [], None, True, 0.0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path, asked = self.path.partition("?")[0], self.headers.get("Range")
        self.server.requests.append((path, asked))
        content = self.server.files.get(path)
        if content is None:
            self.send_error(404)
            return
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if asked and first >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        stop, self.server.break_after = self.server.break_after, None
        if not self.server.pause:
            self.wfile.write(content[first:][:stop])
            return
        for byte in content[first:][:stop]:
            self.wfile.write(bytes([byte]))
            time.sleep(self.server.pause)

    def log_message(self, *_):
        """Nothing on the terminal."""


@contextlib.contextmanager
def file_server():
    """A running server, gone afterwards."""
    with running(FileServer()) as server:
        yield server
