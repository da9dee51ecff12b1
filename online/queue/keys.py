"""Who may talk to a server on another machine: CURVE keys at both ends, and an allow-list.

    trainer: own keys, the server's public key  ◀── encrypted ──▶  server: own keys, allowed keys

    setcon keygen trainer  ──▶  trainer/trainer.secret    stays where it was made
                                trainer/trainer.public    is copied to the servers, for --allow

The files are ZeroMQ certificates, as other ZeroMQ programs read and write them. Without keys
nothing is encrypted and every peer is accepted, which is for loopback and ipc only.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from ingest.disk.durable import clear_write_errors
from ingest.store.output import folder_fault
from online.errors import KeyFileError

log = logging.getLogger(__name__)

PUBLIC, SECRET = ".public", ".secret"

_LINE = r'^[ \t]*%s-key[ \t]*=[ \t]*"([^"\n]*)"[ \t]*$'
_PUBLIC_LINE = re.compile(_LINE % "public", re.MULTILINE)
_SECRET_LINE = re.compile(_LINE % "secret", re.MULTILINE)
_KEY_BYTES = 32
_MAX_FILE_BYTES = 1 << 20

DOMAIN = "setcon"
WARNING_SECONDS = 1.0
"""Refused trainers are logged at most this often: they may try ten times a second."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One side's keys, in Z85."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrainerKeys:
    """What a trainer needs to be accepted, and to verify the server."""

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
    """A file, or a folder of files; read again for each trainer that connects."""

    @contextmanager
    def guarding(self, socket: zmq.Socket) -> Iterator[None]:
        """Let only allowed trainers in while the context is open; `socket` is not bound yet.

        Raises KeyFileError: there are no keys, or none is allowed.
        """
        from zmq.auth.thread import ThreadAuthenticator  # brings asyncio, which few servers need

        socket.curve_secretkey = load_keys(self.folder).secret
        socket.curve_server = True
        socket.zap_domain = DOMAIN.encode()
        # without it, libzmq lets everyone in while nothing answers for the domain
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        load_allowed(self.allowed)
        authenticator = ThreadAuthenticator(socket.context)
        authenticator.configure_curve_callback(DOMAIN, _Doorkeeper(self.allowed))
        authenticator.start()
        try:
            yield
        finally:
            authenticator.stop()


def make_keys(folder: Path) -> Path:
    """Make a pair of keys in `folder`, which is made if it is missing; returns the public one.

    Raises KeyFileError: there are keys already, which are never overwritten, or it is a file;
    StoreError: the folder cannot be written. Then there are no new keys.
    """
    if fault := folder_fault(folder):
        raise KeyFileError(fault)
    with clear_write_errors(str(folder), kept="no keys were made"), ExitStack() as on_failure:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if there := sorted([*folder.glob(f"*{SECRET}"), *folder.glob(f"*{PUBLIC}")]):
            raise _exists(there[0])
        public, secret = (key.decode() for key in zmq.curve_keypair())
        name = folder.resolve().name or "setcon"
        own, others = folder / f"{name}{SECRET}", folder / f"{name}{PUBLIC}"
        of_own = f"# Secret key of {name}: never leaves this machine.\n"
        of_others = f"# Public key of {name}: for those it talks to.\n"
        for path, comment, keys in (
            (own, of_own, {"public": public, "secret": secret}),
            (others, of_others, {"public": public}),
        ):
            descriptor = _new_file(path)
            on_failure.callback(path.unlink, missing_ok=True)
            _write_keys(descriptor, comment, keys)
        on_failure.pop_all()
    return others


def load_keys(folder: Path) -> KeyPair:
    """The keys that `make_keys` made in `folder`.

    Raises KeyFileError: there are none, or others can read the secret.
    """
    found = sorted(folder.glob(f"*{SECRET}"))
    if not found:
        raise KeyFileError(f"{folder}: no keys here; `setcon keygen {folder}` makes them")
    if len(found) > 1:
        raise KeyFileError(f"{folder}: holds {len(found)} secret keys; leave one of them")
    path = found[0]
    text = _read(path)
    if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        raise KeyFileError(f"{path}: has mode {mode:04o}, so others can use it; chmod 600 {path}")
    (public,) = _keys(path, _PUBLIC_LINE.findall(text)[:1])
    (secret,) = _keys(path, _SECRET_LINE.findall(text)[:1])
    if zmq.curve_public(secret) != public:
        raise KeyFileError(f"{path}: public and secret key do not match; generate new ones")
    return KeyPair(public, secret)


def load_public(path: Path) -> bytes:
    """The one public key in a file.

    Raises KeyFileError: there is none, or the file is someone's secret.
    """
    found = _public_keys(path)
    if len(found) != 1:
        raise KeyFileError(f"{path}: holds {len(found)} public keys, one is needed")
    return found[0]


def load_allowed(path: Path, *, warn: Callable[[str], None] = log.warning) -> frozenset[bytes]:
    """The public keys in a file, or in all files `*.public` of a folder.

    In a folder a file that is not a key, or is someone's secret, is left out with a warning.

    Raises KeyFileError: there are none.
    """
    try:
        files = sorted(path.glob(f"*{PUBLIC}")) if path.is_dir() else [path]
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read ({error.strerror})") from error
    if not files:
        raise KeyFileError(f"{path}: no {PUBLIC} file here; copy those of the trainers to it")
    if files == [path]:
        return frozenset(_public_keys(path))
    found: set[bytes] = set()
    faults: list[KeyFileError] = []
    for file in files:
        try:
            found.update(_public_keys(file))
        except KeyFileError as error:
            faults.append(error)
    for fault in faults:  # which keeps no one else out
        warn(f"left out: {fault}")
    if not found:
        raise faults[0] if faults else KeyFileError(f"{path}: no keys in its {PUBLIC} files")
    return frozenset(found)


class _Doorkeeper:
    """The authenticator's thread asks it about each key."""

    def __init__(self, allowed: Path) -> None:
        self._allowed = allowed
        self._warned_at = -WARNING_SECONDS

    def callback(self, domain: str, key: bytes) -> bool:
        try:
            if key in load_allowed(self._allowed, warn=self._warn):
                return True
            self._warn(f"refused a trainer: its key {key.decode()} is not in {self._allowed}")
        except KeyFileError as error:
            self._warn(f"refused a trainer: {error}")
        return False

    def _warn(self, message: str) -> None:
        if time.monotonic() - self._warned_at >= WARNING_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("%s", message)


def _public_keys(path: Path) -> list[bytes]:
    text = _read(path)
    if _SECRET_LINE.search(text):
        raise KeyFileError(
            f"{path}: is a secret key, which should never leave the machine it was made on; "
            f"make new keys there, and copy the {PUBLIC} file"
        )
    return _keys(path, _PUBLIC_LINE.findall(text))


def _keys(path: Path, found: list[str]) -> list[bytes]:
    try:
        keys = [key.encode("ascii") for key in found]
        sizes = {len(z85.decode(key)) for key in keys}
    except (ValueError, LookupError, struct.error):
        keys, sizes = [], set()
    if sizes != {_KEY_BYTES}:
        raise KeyFileError(f"{path}: is not a key; `setcon keygen` makes them")
    return keys


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise KeyFileError(f"{path}: is not a file; remove it")
            return file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read ({error.strerror})") from error


def _new_file(path: Path) -> int:
    """Open a file that only its owner can read, from the first moment on."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process made it just now
        raise _exists(path) from None


def _exists(path: Path) -> KeyFileError:
    return KeyFileError(f"{path}: already exists; make new keys in another folder")


def _write_keys(descriptor: int, comment: str, keys: dict[str, str]) -> None:
    lines = "".join(f'    {name}-key = "{key}"\n' for name, key in keys.items())
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{comment}metadata\ncurve\n{lines}")
