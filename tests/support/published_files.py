"""A server of published files on this machine, with byte ranges and broken transfers, for the tests of fetching."""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files` (path without query to content) and remembers what was asked.

    Attributes:
      requests: (path, Range header or None) of every request.
      break_after: bytes after which the next transfer breaks off, or None.
      ranges: whether byte ranges are understood.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.requests, self.break_after, self.ranges = {}, [], None, True
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
        if first >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        stop, self.server.break_after = self.server.break_after, None
        self.wfile.write(content[first:][:stop])

    def log_message(self, *_):
        """Nothing on the terminal."""


@contextlib.contextmanager
def file_server():
    """A running server, gone afterwards."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
