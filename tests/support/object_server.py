"""A small object store on this machine: files of a folder by ranges, slow and faulty as told, requests counted.

It answers as HTTP servers and S3 do (``GET`` and ``HEAD``, ``Range``, ``ETag`` with ``If-Match``, lists by
``list-type=2``; ``PUT``, also by parts, ``DELETE`` and copies where it may be written to), after a latency and at a
bandwidth for each connection. Faults are scripted: which objects, after how many requests, how often::

    with ObjectServer(folder, latency=0.03, bandwidth=60e6) as server:
        server.fail("status", "*.tif", status=503, times=2)
        ...
        server.count("*.tif"), server.sent

Tests and benchmarks use the one; as a script it serves a folder until it is stopped.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

Kind = Literal["status", "reset", "stall", "short", "wrong_range", "new_etag", "slow"]
_PIECE = 1 << 16


@dataclass
class Fault:
    """What goes wrong for some requests."""

    kind: Kind
    match: str = "*"  # of the object's path
    times: float = 1  # how often; inf for ever
    after: int = 0  # requests that are answered right before
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 3600.0  # that a stall lasts
    methods: tuple[str, ...] = ("GET", "HEAD")

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is one that goes wrong, which counts it."""
        if method not in self.methods or self.times <= 0 or not fnmatch.fnmatchcase(path, self.match):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Seen:
    """A request, and what was answered."""

    method: str
    path: str
    span: tuple[int, int] | None  # first byte and the one after the last
    status: int
    sent: int  # bytes of the body
    at: float  # by time.monotonic()


class ObjectServer:
    """Serves the files of a folder on a port of its own; a context manager.

    Parameters
    ----------
    folder : path
        Files below it are objects.
    latency : float
        Seconds before each answer.
    bandwidth : float, optional
        Bytes a second of each connection.
    listable : bool
        Whether it lists as S3 does; where not, an object that is not there is forbidden, as in S3.
    writable : bool
        Whether it takes objects, and deletes and copies them.
    tls : bool
        By https, with a certificate of its own: ``certificate`` is the path of it.
    port : int
        A free one by default.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        latency: float = 0.0,
        bandwidth: float | None = None,
        listable: bool = True,
        writable: bool = False,
        tls: bool = False,
        port: int = 0,
    ) -> None:
        self.folder, self.latency, self.bandwidth = Path(folder), latency, bandwidth
        self.listable, self.writable = listable, writable
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.uploads: dict[str, dict[int, bytes]] = {}  # parts by upload and number
        self.under_way, self.busiest = 0, 0  # requests now, and the most at once
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._server = _Server(self, port)
        self.certificate = self.folder / ".certificate.pem" if tls else None
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(_make_certificate(self.certificate))
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ObjectServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, kind: Kind, match: str = "*", **options: Any) -> None:
        """Script a fault: see :class:`Fault`."""
        self.faults.append(Fault(kind, match, **options))

    def reset(self) -> None:
        """Forget faults and counts."""
        with self.lock:
            self.seen.clear()
            self.faults.clear()
            self.busiest = 0

    def count(self, match: str = "*", method: str = "GET") -> int:
        """How many requests there were."""
        with self.lock:
            return sum(s.method == method and fnmatch.fnmatchcase(s.path, match) for s in self.seen)

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        with self.lock:
            return sum(each.sent for each in self.seen)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: ObjectServer, port: int) -> None:
        self.store = store
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are in ``seen``."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        store = self.server.store
        if self.path == "/.seen":
            with store.lock:
                done = sum(s.method == "GET" for s in store.seen), sum(s.sent for s in store.seen)
                store.seen.clear()
            self._send(200, json.dumps(done).encode(), {}, note=False)
            return
        with store.lock:
            store.under_way += 1
            store.busiest = max(store.busiest, store.under_way)
        try:
            self._answer()
        finally:
            with store.lock:
                store.under_way -= 1

    def do_PUT(self) -> None:
        store = self.server.store
        parts = urlsplit(self.path)
        path, query = unquote(parts.path).lstrip("/"), parse_qs(parts.query)
        with store.lock:
            fault = next((f for f in store.faults if f.takes(self.command, path)), None)
        if fault is not None and fault.kind == "reset":
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            self._hang_up()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault is not None or not store.writable:
            self._send(fault.status if fault is not None else 403, b"<Error><Code>Denied</Code></Error>", {})
            return
        if "uploadId" in query:
            with store.lock:
                store.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            self._send(200, b"", {"ETag": '"part"'})
            return
        copied = unquote(self.headers.get("x-amz-copy-source", "")).lstrip("/")
        self._keep(path, (store.folder / copied).read_bytes() if copied else body)
        tag = "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>" if copied else ""
        self._send(200, tag.encode(), {"ETag": '"e"'})

    def _keep(self, path: str, body: bytes) -> None:
        file = self.server.store.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)

    def do_POST(self) -> None:
        """Delete several objects, as S3 does, which lists their keys in XML; begin and end an upload by parts."""
        store = self.server.store
        parts = urlsplit(self.path)
        path, query = unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with store.lock:
            fault = next((f for f in store.faults if f.takes(self.command, path)), None)
        if fault is not None:
            self._send(fault.status, b"<Error><Code>Denied</Code></Error>", {})
            return
        if "uploads" in query:
            with store.lock:
                number = f"upload-{len(store.uploads)}"
                store.uploads[number] = {}
            answer = f"<UploadId>{number}</UploadId>"
            self._send(
                200, f"<InitiateMultipartUploadResult>{answer}</InitiateMultipartUploadResult>".encode(), {}
            )
            return
        if "uploadId" in query:
            with store.lock:
                pieces = store.uploads.pop(query["uploadId"][0])
            self._keep(path, b"".join(pieces[n] for n in sorted(pieces)))
            answer = "<ETag>e</ETag>"
            self._send(
                200, f"<CompleteMultipartUploadResult>{answer}</CompleteMultipartUploadResult>".encode(), {}
            )
            return
        keys = re.findall("<Key>(.*?)</Key>", body)
        for key in keys:
            (store.folder / path / unescape(key)).unlink(missing_ok=True)
        gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._send(200, f"<DeleteResult>{gone}</DeleteResult>".encode(), {})

    def do_DELETE(self) -> None:
        store = self.server.store
        parts = urlsplit(self.path)
        path = unquote(parts.path).lstrip("/")
        with store.lock:
            fault = next((f for f in store.faults if f.takes(self.command, path)), None)
        if fault is not None:
            self._send(fault.status, b"<Error><Code>Denied</Code></Error>", {})
            return
        if "uploadId" in parse_qs(parts.query):
            with store.lock:
                store.uploads.pop(parse_qs(parts.query)["uploadId"][0], None)
        else:
            (store.folder / path).unlink(missing_ok=True)
        self._send(204, b"", {})

    def _answer(self) -> None:
        store = self.server.store
        parts = urlsplit(self.path)
        path = unquote(parts.path).lstrip("/")
        with store.lock:
            fault = next((f for f in store.faults if f.takes(self.command, path)), None)
        time.sleep(store.latency)
        kind = fault.kind if fault is not None else None
        if fault is not None and kind == "status":
            self._send(fault.status, b"scripted", fault.headers)
        elif kind == "reset":
            self._note(path, None, 0, 0)
            self._hang_up()
        elif "list-type" in parse_qs(parts.query) or (parts.query and "prefix" in parse_qs(parts.query)):
            self._list(path, parse_qs(parts.query))
        else:
            self._object(path, fault)

    # --- objects ----------------------------------------------------------------------------------------------

    def _object(self, path: str, fault: Fault | None) -> None:
        store, kind = self.server.store, fault.kind if fault is not None else None
        file = (store.folder / path).resolve()
        if not file.is_relative_to(store.folder.resolve()) or not file.is_file():
            self._send(404 if store.listable else 403, b"<Error><Code>NoSuchKey</Code></Error>", {})
            return
        stat = file.stat()
        etag = hashlib.sha1(f"{stat.st_mtime_ns}-{stat.st_size}".encode()).hexdigest()[:16]
        etag = f'"{etag}{len(store.seen) if kind == "new_etag" else ""}"'
        if self.headers.get("If-Match", etag) not in (etag, "*"):
            self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>", {})
            return
        if self.headers.get("If-None-Match") == etag:
            self._send(304, b"", {})
            return
        start, stop = self._span(stat.st_size)
        if start >= stop and stat.st_size:
            self._send(416, b"", {"Content-Range": f"bytes */{stat.st_size}"})
            return
        headers = {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Last-Modified": self.date_time_string(int(stat.st_mtime)),
        }
        status = 200
        if "Range" in self.headers:
            status, shift = 206, 7 if kind == "wrong_range" else 0
            headers["Content-Range"] = f"bytes {start + shift}-{stop - 1 + shift}/{stat.st_size + shift}"
        with file.open("rb") as opened:
            opened.seek(start)
            body = opened.read(stop - start) if self.command == "GET" else b""
        self._send(status, body, headers, length=stop - start, span=(start, stop), fault=fault)

    def _span(self, size: int) -> tuple[int, int]:
        given = self.headers.get("Range", "").removeprefix("bytes=")
        if not given:
            return 0, size
        first, _, last = given.partition("-")
        if not first:
            return max(size - int(last), 0), size
        return int(first), min(int(last) + 1, size) if last else size

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        store = self.server.store
        if not store.listable:
            self._send(403, b"<Error><Code>AccessDenied</Code></Error>", {})
            return
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        root = store.folder / bucket
        keys, folders = [], set()
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            key = file.relative_to(root).as_posix()
            if not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            stat = file.stat()
            etag = hashlib.sha1(f"{stat.st_mtime_ns}-{stat.st_size}".encode()).hexdigest()[:16]
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stat.st_mtime))
            keys.append(
                f"<Contents><Key>{escape(quote(key))}</Key><LastModified>{when}</LastModified>"
                f'<ETag>"{etag}"</ETag><Size>{stat.st_size}</Size></Contents>'
            )
        common = "".join(
            f"<CommonPrefixes><Prefix>{quote(f)}</Prefix></CommonPrefixes>" for f in sorted(folders)
        )
        body = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>"
            f"{''.join(keys)}{common}</ListBucketResult>"
        )
        self._send(200, body.encode(), {"Content-Type": "application/xml"})

    # --- the wire ---------------------------------------------------------------------------------------------

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        *,
        length: int | None = None,
        span: tuple[int, int] | None = None,
        fault: Fault | None = None,
        note: bool = True,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if note:
            self._note(unquote(urlsplit(self.path).path).lstrip("/"), span, status, len(body))
        if self.command == "HEAD":
            return
        kind = fault.kind if fault is not None else None
        whole = body if kind not in ("stall", "short") else body[: len(body) // 2]
        self._write(whole)
        if kind == "stall" and fault is not None:
            self.wfile.flush()
            self.server.store.stopping.wait(fault.seconds)
        if kind in ("stall", "short"):
            self.wfile.flush()
            self.close_connection = True

    def _write(self, body: bytes) -> None:
        rate = self.server.store.bandwidth
        if rate is None:
            self.wfile.write(body)
            return
        start = time.monotonic()
        for at in range(0, len(body), _PIECE):
            self.wfile.write(body[at : at + _PIECE])
            ahead = (at + _PIECE) / rate - (time.monotonic() - start)
            if ahead > 0.001:
                time.sleep(ahead)

    def _hang_up(self) -> None:
        """Close so that the other side sees a reset, not an end."""
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _note(self, path: str, span: tuple[int, int] | None, status: int, sent: int) -> None:
        store = self.server.store
        with store.lock:
            store.seen.append(Seen(self.command, path, span, status, sent, time.monotonic()))


def _make_certificate(path: Path) -> Path:
    """A key and a certificate of its own for 127.0.0.1, in one file."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
    ]
    subprocess.run([*command, "-keyout", f"{path}.key", "-out", str(path)], check=True, capture_output=True)
    both = path.with_suffix(".both")
    both.write_text(Path(f"{path}.key").read_text() + path.read_text())
    return both


# --- in a process of its own, where what is measured should not share the interpreter with it --------------------


@contextmanager
def in_process(
    folder: Path, latency: float, bandwidth: float
) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    """A server in another process: its URL, and a function that tells requests and bytes since it last did."""
    command = [
        sys.executable,
        __file__,
        str(folder),
        "--latency",
        str(latency),
        "--bandwidth",
        str(bandwidth),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()

    def seen() -> list[int]:
        with urllib.request.urlopen(f"{url}/.seen") as answer:
            found: list[int] = json.load(answer)
        return found

    try:
        yield url, seen
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Serve a folder until stopped; prints the URL first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument(
        "--bandwidth", type=float, default=0.0, help="bytes a second a connection; 0: as fast as it goes"
    )
    given = parser.parse_args()
    with ObjectServer(given.folder, latency=given.latency, bandwidth=given.bandwidth or None) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
