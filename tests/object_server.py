"""A small service of objects on loopback that can be as ignorant, slow to know the time, and unlucky as real ones are.

It knows just the requests that a store makes. What it is asked is recorded; keys are those of the bucket, without its name.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from stores import BUCKET, Server


@dataclass
class Thing:
    content: bytes
    modified: datetime
    meta: dict[str, str]

    @property
    def tag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


@dataclass
class Service:
    """What the server holds, and how it behaves; to be changed while it runs.

    Attributes:
        honours: which conditions it looks at: ``create``, ``match`` and ``delete``.
        ahead: how far its clock is ahead of this machine's.
        refuse: returns a status and an error's code and message for a request, or None; asked first.
        unlucky: of a request that was carried out, whether its answer is lost.
        before: called with the method and the key before anything is done.
    """

    honours: set[str] = field(default_factory=lambda: {"create", "match", "delete"})
    ahead: timedelta = timedelta()
    refuse: Callable[[str, str, dict[str, str]], tuple[int, str, str] | None] = lambda method, key, headers: None
    unlucky: Callable[[str, str], bool] = lambda method, key: False
    before: Callable[[str, str], None] = lambda method, key: None
    things: dict[str, Thing] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    @property
    def env(self) -> dict[str, str]:
        return Server(self.url).env

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def put(self, key: str, content: bytes, meta: dict[str, str] | None = None) -> None:
        self.things[key] = Thing(content, self.now(), meta or {})

    def fails(self, thing: Thing | None, headers: dict[str, str], method: str) -> bool:
        """Whether a condition of a request that changes something is not met."""
        if headers.get("if-none-match") == "*" and "create" in self.honours and thing is not None:
            return True
        wanted = headers.get("if-match")
        looked_at = "delete" if method == "DELETE" else "match"
        return wanted is not None and looked_at in self.honours and (thing is None or thing.tag != wanted)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        service: Service = self.server.service
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        parts = urlsplit(self.path)
        key = unquote(parts.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        service.asked.append((self.command, key, headers))
        service.before(self.command, key)
        refused = service.refuse(self.command, key, headers)
        if refused is not None:
            status, code, message = refused
            body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>" if code else message
            self._answer(status, body.encode())
            return
        with service.lock:
            status, body, more = self._do(service, key, content, headers, parse_qs(parts.query, keep_blank_values=True))
        if service.unlucky(self.command, key):
            self.close_connection = True
            self.connection.close()
            return
        self._answer(status, body, more)

    do_GET = do_HEAD = do_PUT = do_DELETE = _handle  # noqa: N815 - the names that http.server looks for

    def _do(
        self, service: Service, key: str, content: bytes, headers: dict[str, str], query: dict[str, list[str]]
    ) -> tuple[int, bytes, dict[str, str]]:
        thing = service.things.get(key)
        if "list-type" in query:
            return 200, self._listing(service, query), {}
        if self.command in ("PUT", "DELETE") and service.fails(thing, headers, self.command):
            return 412, b"<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>", {}
        if self.command == "PUT":
            meta = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
            service.put(key, content, meta)
            return 200, b"", {"ETag": service.things[key].tag}
        if self.command == "DELETE":
            service.things.pop(key, None)
            return 204, b"", {}
        if thing is None:
            return 404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", {}
        return (
            200,
            thing.content,
            {"ETag": thing.tag, "Last-Modified": format_datetime(thing.modified, usegmt=True), **thing.meta},
        )

    def _listing(self, service: Service, query: dict[str, list[str]]) -> bytes:
        prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        contents, folders = [], set()
        for key, thing in sorted(service.things.items()):
            if key.startswith(prefix):
                rest = key[len(prefix) :]
                if delimiter and delimiter in rest:
                    folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                    continue
                modified = thing.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z")
                tag = escape(thing.tag, {'"': "&quot;"})
                contents.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}</LastModified><ETag>{tag}</ETag>"
                    f"<Size>{len(thing.content)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
        prefixes = [f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders)]
        head = f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{head}{''.join(contents + prefixes)}</ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(**named: Any) -> Iterator[Service]:
    """Run such a service while the context lasts."""
    service = Service(**named)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.service = service  # type: ignore[attr-defined]
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
