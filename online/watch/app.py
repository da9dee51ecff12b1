"""The page and its events over HTTP.

    GET /              the page
    GET /events?run=   server-sent events: sections whose markup has changed
    GET /report?run=   the run's report.html

The page asks for nothing else, loads nothing from other hosts, and changes nothing: all is read.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from online.reports.page import POLICY, STYLE
from online.watch import sections
from online.watch.runs import Runs

POLL_SECONDS = 1.0
BEAT_POLLS = 15
"""Polls without news after which a comment is sent: a connection that is gone is noticed so."""
LOCAL_HOSTS = ["127.0.0.1", "[::1]", "localhost"]
"""What a browser may call this machine: the name of a site that leads here is refused."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


_REPORT_HEADERS = _HEADERS | {
    "Content-Security-Policy": f"{POLICY}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
}
"""A run that is shown may be another person's: no script of its report may run."""


def watch_app(
    runs: Runs,
    *,
    token: str | None,
    port: int,
    is_closing: Callable[[], bool],
    host: str = LOCAL_HOSTS[0],
) -> Starlette:
    """The page of these runs.

    With a `token` only browsers that have been given it are served; without one, only those that
    call this machine by a local name or by `host`, where it listens. `is_closing`
    ends open connections.
    """
    gate = Middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL_HOSTS, _in_url(host)])
    if token is not None:
        gate = Middleware(_TokenGate, token=token, cookie=f"setcon-watch-{port}")

    async def events(request: Request) -> Response:
        name = request.query_params.get("run")
        return StreamingResponse(
            _events(runs, name, is_closing), media_type="text/event-stream", headers=_HEADERS
        )

    async def report(request: Request) -> Response:
        run = await anyio.to_thread.run_sync(runs.find, request.query_params.get("run"))
        page = None if run is None else await anyio.to_thread.run_sync(_read, run.path)
        if page is None:
            return PlainTextResponse("There is no report yet.", status_code=404)
        return HTMLResponse(page, headers=_REPORT_HEADERS)

    return Starlette(
        routes=[
            Route("/", _file("page.html", "text/html")),
            Route("/watch.js", _file("watch.js", "text/javascript")),
            Route("/watch.css", _file("watch.css", "text/css", before=STYLE)),
            Route("/events", events),
            Route("/report", report),
        ],
        middleware=[gate],
    )


def _in_url(host: str) -> str:
    """A host as browsers spell it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return f"[{address}]" if address.version == 6 else str(address)


class _TokenGate:
    """Lets those in who bring the token once, in the address; a cookie then stands for it."""

    def __init__(self, app: ASGIApp, *, token: str, cookie: str) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        answer: ASGIApp = self._app
        if self._is_token(request.query_params.get("token")):
            # so that the token does not stay in the address bar
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
        elif not self._is_token(request.cookies.get(self._cookie)):
            answer = PlainTextResponse(
                "This page needs its token: open the address that `setcon watch` has printed.",
                status_code=403,
            )
        await answer(scope, receive, send)

    def _is_token(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), self._token.encode())


async def _events(
    runs: Runs, name: str | None, is_closing: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """What changes, for as long as the page is open; at first all of it."""
    sent: dict[str, object] = {}
    quiet = 0
    while not is_closing():
        now = await anyio.to_thread.run_sync(_now, runs, name)
        changed = {key: value for key, value in now.items() if sent.get(key) != value}
        if changed:
            sent, quiet = now, 0
            yield b"data: " + msgspec.json.encode(changed) + b"\n\n"
        elif (quiet := quiet + 1) >= BEAT_POLLS:
            quiet = 0
            yield b": still here\n\n"
        await anyio.sleep(POLL_SECONDS)


def _now(runs: Runs, name: str | None) -> dict[str, object]:
    names = runs.names()
    run = runs.find(name)
    if run is None:
        return {"runs": names, "shown": None, "state": sections.missing(name)}
    shown = name if name is not None else next(iter(names), None)
    return {"runs": names, "shown": shown, **run.sections()}


def _file(name: str, media_type: str, *, before: str = "") -> Callable[[Request], Response]:
    content = before + resources.files("online.watch").joinpath("page", name).read_text("utf-8")

    def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer


def _read(run: Path) -> str | None:
    try:
        return (run / "report.html").read_text("utf-8", "replace")
    except OSError:
        return None
