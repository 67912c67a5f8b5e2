"""A mirror of Debian on this machine: fetches each file once, keeps it, and serves it as often as somebody asks.

Each archive of the upstream mirrors is a directory with a number: /0/dists/…, /1/dists/…
"""

import http.server
import os
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.request


class Mirror(http.server.ThreadingHTTPServer):
    """Serves what is kept in `directory`, or fetches it from `upstream`, a list of addresses of archives."""

    daemon_threads = True

    def __init__(self, directory, upstream):
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory, self.upstream = directory, upstream
        self.locks, self.guard = {}, threading.Lock()
        # How many files were fetched from upstream.
        self.fetched = 0

    def lock(self, path):
        with self.guard:
            return self.locks.setdefault(path, threading.Lock())

    def file(self, path):
        """Where a file is kept, fetched if need be; `None` if there is none."""
        number, _, below = path.strip("/").partition("/")
        if not number.isdigit() or int(number) >= len(self.upstream) or ".." in below.split("/"):
            return None
        kept = os.path.join(self.directory, number, below)
        with self.lock(kept):
            if os.path.isfile(kept):
                return kept
            if os.path.exists(kept + ".absent"):
                return None
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            try:
                with urllib.request.urlopen(self.upstream[int(number)] + below) as answer:
                    with tempfile.NamedTemporaryFile(dir=os.path.dirname(kept), delete=False) as new:
                        shutil.copyfileobj(answer, new, 1 << 20)
                os.rename(new.name, kept)
                with self.guard:
                    self.fetched += 1
                return kept
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                open(kept + ".absent", "w").close()
                return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.server.file(urllib.request.unquote(self.path))
        if path is None:
            return self.answer(404, [])
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            etag = f'"{size}-{os.fstat(file.fileno()).st_mtime_ns}"'
            if self.headers.get("If-None-Match") == etag:
                return self.answer(304, [("ETag", etag)])
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("ETag", etag)
            self.end_headers()
            self.wfile.flush()
            sent = 0
            while sent < size:
                done = os.sendfile(self.connection.fileno(), file.fileno(), sent, size - sent)
                if done == 0:
                    break
                sent += done

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in headers + [("Content-Length", "0")]:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


def start(directory, upstream):
    """Starts a mirror in this process. Returns it and the address of each archive."""
    mirror = Mirror(directory, upstream)
    threading.Thread(target=mirror.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{mirror.server_address[1]}"
    return mirror, [f"{address}/{number}/" for number in range(len(upstream))]


if __name__ == "__main__":
    directory, *upstream = sys.argv[1:]
    mirror, addresses = start(directory, upstream)
    print("\n".join(addresses), flush=True)
    threading.Event().wait()
