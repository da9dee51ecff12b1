"""An object store on this machine that speaks the part of S3's HTTP that a store needs.

    with ObjectServer(delay_seconds=0.05) as server:
        os.environ |= server.environment     # for s3://BUCKET/...
        server.requests                      # how many of each verb, and how many bytes were sent

It keeps objects in memory, checks no signature, answers conditional requests with 412 as S3 does,
and waits `delay_seconds` before the first byte of each answer. It is for tests
and figures.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

PAGE = 1000
"""Names in one answer to a listing, as in S3."""


class ObjectServer:
    """The server, on a thread of its own, while the context is open."""

    def __init__(self, *, delay_seconds: float = 0.0) -> None:
        self.delay_seconds = delay_seconds
        self.objects: dict[str, bytes] = {}
        """By `BUCKET/KEY`."""
        self.metadata: dict[str, dict[str, str]] = {}
        """Of the same, as their writers gave it."""
        self.requests: Counter[str] = Counter()
        """How many of each verb, LIST among them, and `bytes` that GETs have sent."""
        self.waiting = self.most_waiting = 0
        """Requests that wait for their answer now, and the most of them so far."""
        self.before_put: Callable[[str], None] = lambda key: None
        """Called with the key before each PUT; may raise to answer with an error instead."""
        self.broken_off = 0
        """Of how many of the next answers to a GET or a LIST only a half is sent."""
        self.lock = threading.Lock()
        self._tags: dict[str, tuple[bytes, str]] = {}
        self._server = _Server(self)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which obstore and others find it."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def wait(self) -> None:
        """Before the first byte of an answer."""
        with self.lock:
            self.waiting += 1
            self.most_waiting = max(self.waiting, self.most_waiting)
        time.sleep(self.delay_seconds)
        with self.lock:
            self.waiting -= 1

    def tag(self, key: str, data: bytes) -> str:
        """The tag of what is at `key`, made once: a checksum of it all takes longer than a GET."""
        known = self._tags.get(key)
        if known is None or known[0] is not data:
            known = self._tags[key] = (data, e_tag(data))
        return known[1]

    def drop(self, key: str) -> None:
        """Forget an object, where there is one."""
        self.objects.pop(key, None)
        self._tags.pop(key, None)

    def __enter__(self) -> "ObjectServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def e_tag(data: bytes) -> str:
    """As S3 makes it of an object that was put at once."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, held: ObjectServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.held = held

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] (what makes it)

    def do_GET(self) -> None:
        held, key, query = self._begin()
        if "list-type" in query:
            return self._list(key, query)
        held.requests["GET"] += 1
        data = held.objects.get(key)
        if data is None:
            return self._answer(404, _error("NoSuchKey"))
        tag = held.tag(key, data)
        if self.headers.get("If-Match", tag) != tag:
            return self._answer(412, _error("PreconditionFailed"))
        if (asked := self.headers.get("Range")) is None:
            held.requests["bytes"] += len(data)
            return self._data(200, data, tag, held.metadata.get(key))
        first, last = asked.removeprefix("bytes=").split("-")
        start = int(first) if first else max(0, len(data) - int(last))
        part = data[start : int(last) + 1] if first and last else data[start:]
        if not part:
            return self._answer(416, _error("InvalidRange"))
        held.requests["bytes"] += len(part)
        place = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        self._data(206, part, tag, {"Content-Range": place})

    def do_HEAD(self) -> None:
        held, key, _ = self._begin()
        held.requests["HEAD"] += 1
        if (data := held.objects.get(key)) is None:
            return self._answer(404)
        self._data(200, data, held.tag(key, data))

    def do_PUT(self) -> None:
        held, key, _ = self._begin()
        held.requests["PUT"] += 1
        data = self._body()
        try:
            held.before_put(key)
        except Exception:
            return self._answer(403, _error("AccessDenied"))
        with held.lock:
            before = held.objects.get(key)
            wanted, unwanted = self.headers.get("If-Match"), self.headers.get("If-None-Match")
            if wanted is not None and before is None:
                return self._answer(404, _error("NoSuchKey"))
            if (unwanted == "*" and before is not None) or (
                wanted is not None and before is not None and wanted != held.tag(key, before)
            ):
                return self._answer(412, _error("PreconditionFailed"))
            held.objects[key] = data
            given = {k: v for k, v in self.headers.items() if k.lower().startswith("x-amz-meta-")}
            held.metadata[key] = given
        self._answer(200, headers={"ETag": held.tag(key, data)})

    def do_DELETE(self) -> None:
        held, key, _ = self._begin()
        held.requests["DELETE"] += 1
        held.drop(key)
        self._answer(204)

    def do_POST(self) -> None:
        """Delete up to a thousand objects."""
        held, bucket, query = self._begin()
        assert "delete" in query
        held.requests["DELETE"] += 1
        answer = []
        for element in ElementTree.fromstring(self._body()).iter():
            if element.tag.endswith("Key"):
                held.drop(f"{bucket.strip('/')}/{element.text}")
                answer.append(f"<Deleted><Key>{escape(element.text or '')}</Key></Deleted>")
        self._answer(200, f"<DeleteResult>{''.join(answer)}</DeleteResult>".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _begin(self) -> tuple[ObjectServer, str, dict[str, list[str]]]:
        url = urlsplit(self.path)
        self.server.held.wait()
        query = parse_qs(url.query, keep_blank_values=True)
        return self.server.held, unquote(url.path).lstrip("/"), query

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        held = self.server.held
        held.requests["LIST"] += 1
        root = bucket.strip("/") + "/"
        prefix, delimiter, after = (
            query.get(name, [""])[0] for name in ("prefix", "delimiter", "continuation-token")
        )
        found: dict[str, bytes | None] = {}
        for key, data in sorted(held.objects.items()):
            name = key.removeprefix(root)
            if key.startswith(root) and name.startswith(prefix):
                rest = name[len(prefix) :]
                folder = bool(delimiter) and delimiter in rest
                named = prefix + rest.split(delimiter)[0] + delimiter if folder else name
                if named > after:
                    found[named] = None if folder else data
        page = list(found.items())[:PAGE]
        more = len(found) > len(page)
        last = page[-1][0] if more else ""
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" * more
        body = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if data is None
            else f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size>"
            f"<ETag>{escape(held.tag(root + name, data))}</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for name, data in page
        )
        head = f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        cut = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        self._answer(200, f"<ListBucketResult>{head}{cut}{token}{body}</ListBucketResult>".encode())

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _data(
        self, status: int, part: bytes, tag: str, headers: dict[str, str] | None = None
    ) -> None:
        modified = {"ETag": tag, "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        self._answer(status, part, modified | (headers or {}))

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        held = self.server.held
        if self.command == "GET" and held.broken_off:
            held.broken_off -= 1
            body, self.close_connection = body[: len(body) // 2], True
        if self.command != "HEAD":
            self.wfile.write(body)


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()
