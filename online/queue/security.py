"""Who may talk to a server on another machine: CURVE keys at both ends, and an allow-list.

    trainer: own keys, the server's public key  ◀── encrypted ──▶  server: own keys, allowed keys

Without keys nothing is encrypted and nobody is asked who they are, which is for loopback and ipc.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import zmq

from online.errors import KeyFileError
from online.queue.keys import KeyPair, load_allowed, load_keys, load_public

log = logging.getLogger(__name__)

DOMAIN = "setcon"
WARNING_SECONDS = 1.0
"""Refused trainers are logged at most this often: they may try ten times a second."""


@dataclass(frozen=True, slots=True)
class TrainerKeys:
    """What a trainer needs to be let in, and to know that the server is the right one."""

    own: KeyPair
    server: bytes
    """The server's public key."""

    @classmethod
    def load(cls, folder: Path, server: Path) -> TrainerKeys:
        """Keys made by `make_keys` in `folder`, and the `server`'s public key file.

        Raises KeyFileError: either is not that.
        """
        return cls(load_keys(folder), load_public(server))

    def apply(self, socket: zmq.Socket) -> None:
        """Make `socket` use them; before it connects."""
        socket.curve_serverkey = self.server
        socket.curve_publickey = self.own.public
        socket.curve_secretkey = self.own.secret


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """Where a server's own keys are, and the public keys of the trainers it lets in."""

    folder: Path
    allowed: Path
    """A file, or a folder of files; read anew for each trainer that connects."""

    @contextmanager
    def guarding(self, socket: zmq.Socket) -> Iterator[None]:
        """Let only allowed trainers in while the context is open; `socket` is not bound yet.

        Raises KeyFileError: there are no keys, or none is allowed.
        """
        from zmq.auth.thread import ThreadAuthenticator  # brings asyncio, which few servers need

        socket.curve_secretkey = load_keys(self.folder).secret
        socket.curve_server = True
        socket.zap_domain = DOMAIN.encode()
        # without it, libzmq lets everybody in while nobody answers for the domain
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        load_allowed(self.allowed)
        authenticator = ThreadAuthenticator(socket.context)
        authenticator.configure_curve_callback(DOMAIN, _Doorkeeper(self.allowed))
        authenticator.start()
        try:
            yield
        finally:
            authenticator.stop()


class _Doorkeeper:
    """Asked by the authenticator's thread about each key."""

    def __init__(self, allowed: Path) -> None:
        self._allowed = allowed
        self._warned_at = -WARNING_SECONDS

    def callback(self, domain: str, key: bytes) -> bool:
        try:
            if key in load_allowed(self._allowed):
                return True
            self._warn(f"refused a trainer: its key {key.decode()} is not in {self._allowed}")
        except KeyFileError as error:
            self._warn(f"refused a trainer: {error}")
        return False

    def _warn(self, message: str) -> None:
        if time.monotonic() - self._warned_at >= WARNING_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("%s", message)
