"""Serves the page until a signal comes: binds, prints where, and runs uvicorn."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from urllib.parse import quote

import uvicorn

from online.errors import AddressError, ConfigError
from online.watch.app import watch_app
from online.watch.runs import Runs

HOST = "127.0.0.1"
PORT = 8642
"""Taken where none is asked for and it is free."""
TOKEN_BYTES = 24
LEAST_TOKEN = 16
"""Characters of a token that is given: a shorter one can be guessed."""
_CLOSE_SECONDS = 3
"""How long open pages have to notice that the server ends."""


def serve_page(
    runs: Runs,
    *,
    host: str = HOST,
    port: int | None = None,
    token: str | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serve the page of `runs`; `ready` is called with its address.

    Beyond this machine's own browsers a token is needed: without `token` one is drawn.

    Raises ConfigError where the token is too short, AddressError where the address cannot be had.
    """
    if token is not None:
        _check_token(token)
    listener = _bound(host, port)
    with listener:
        bound_port = int(listener.getsockname()[1])
        if token is None and not _is_loopback(host):
            token = secrets.token_urlsafe(TOKEN_BYTES)
        app = watch_app(
            runs,
            token=token,
            port=bound_port,
            is_closing=lambda: server.should_exit,
            host=host,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_CLOSE_SECONDS,
            )
        )
        ready(_address(host, bound_port, token))
        server.run(sockets=[listener])


def _check_token(token: str) -> None:
    """A cookie carries it, so it must be of characters that a header can hold."""
    if len(token) < LEAST_TOKEN or not (token.isascii() and token.isprintable()):
        raise ConfigError(
            f"--token: {len(token)} characters; give at least {LEAST_TOKEN} printable ASCII "
            "characters, or none to have one drawn"
        )


def _bound(host: str, port: int | None) -> socket.socket:
    """A listening socket; a free port where none was asked for and the usual one is taken."""
    wanted = [PORT, 0] if port is None else [port]
    problem: OSError | None = None
    for each in wanted:
        try:
            return _listening(host, each)
        except OSError as error:
            problem = error
    raise AddressError(
        f"{host}:{wanted[0]}: cannot listen there ({problem}); choose another --host or --port"
    ) from problem


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(host: str, port: int, token: str | None) -> str:
    named = socket.gethostname() if host in ("0.0.0.0", "::") else host
    named = f"[{named}]" if ":" in named else named
    return f"http://{named}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")
