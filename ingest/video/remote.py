"""Files behind http(s) addresses: FFmpeg reads them, and the server says what tells them apart."""

import hashlib
import logging
from base64 import b64encode
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from ingest.addresses import OBJECT_STORES, scheme_of, without_secrets
from ingest.errors import VideoError

log = logging.getLogger(__name__)

FILE_SCHEMES = frozenset({"http", "https"})
"""Of addresses that may be those of files."""
LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtp", "rtmp", "rtmps", "srt", "udp", "tcp"})
"""Of addresses that can only be those of cameras and other live sources."""
_MIB = 1 << 20
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """What a server says of a file."""

    size_bytes: int
    """0 where it does not say."""
    digest: str
    """SHA-256 over the first and last MiB where it gives parts of a file, else over what it says
    of the version and the first MiB."""


def check_address(source: str) -> None:
    """Refuse what is no file behind http(s), and say what it is."""
    scheme = scheme_of(source)
    if scheme in FILE_SCHEMES:
        return
    if scheme in LIVE_SCHEMES:
        raise not_a_file(without_secrets(source))
    raise VideoError(
        f"{without_secrets(source)}: {scheme} is not read; name a file or an address that begins "
        "with http://, https://, s3://, gs:// or az://"
    )


def not_a_file(source: str) -> VideoError:
    """What is said of a source that has no end."""
    return VideoError(f"{source}: a live source; record it with `setcon capture {source} STORE`")


def place_of(address: str) -> str:
    """Where a file is, whoever asks for it and how: its address without user and query.

    The name of an object may hold a `?` or a `#`, and has no query.
    """
    if scheme_of(address) in OBJECT_STORES:
        return address
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def file_name(address: str) -> str:
    """Name of the file that an address ends in."""
    if scheme_of(address) in OBJECT_STORES:
        return address.rpartition("/")[2]
    return PurePosixPath(urlsplit(address).path).name or urlsplit(address).netloc


def look_at(address: str, *, place: str | None = None) -> RemoteFile:
    """Ask a server for what tells a file from others; VideoError where it does not have it.

    `place` is what messages call it, where the address was made for this program alone.
    """
    place = place or place_of(address)
    from http import HTTPStatus  # few sources are on a server
    from http.client import HTTPException
    from ssl import SSLCertVerificationError
    from urllib.error import HTTPError, URLError

    digest = hashlib.sha256()
    try:
        with _get(address, f"bytes=0-{_MIB - 1}") as answer:
            if answer.headers.get_content_maintype() == "multipart":  # MJPEG, picture by picture
                raise not_a_file(place)
            first, headers, gives_parts = answer.read(_MIB), answer.headers, answer.status == 206
        if gives_parts:
            size = int(headers.get("Content-Range", "").rpartition("/")[2])
            with _get(address, f"bytes={max(0, size - _MIB)}-{size - 1}") as answer:
                last = answer.read(_MIB)
            digest.update(f"{size}\n".encode() + first + last)
        else:
            size = int(headers.get("Content-Length") or 0)
            version = [headers.get(name, "") for name in ("ETag", "Last-Modified")]
            digest.update(f"{size} {version}\n".encode() + first)
            log.warning(
                "%s: the server gives the whole file only; where it is interrupted, it is read "
                "again from its start",
                place,
            )
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the answer, too
        if isinstance(error, URLError) and isinstance(error.reason, SSLCertVerificationError):
            raise VideoError(
                f"{place}: its certificate is not trusted "
                f"({error.reason.verify_message}); check the address, or trust the certificates of "
                "a file: SSL_CERT_FILE=FILE setcon ingest ..."
            ) from error
        if getattr(error, "code", None) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise VideoError(f"{place}: is empty; name another file") from error
        raise VideoError(
            f"{place}: cannot be read ({error}); check the address and the network"
        ) from error
    return RemoteFile(size_bytes=size, digest=digest.hexdigest())


def _get(address: str, part: str):
    parts = urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    headers = {"Range": part}
    if user:  # urllib takes it for a part of the host's name; FFmpeg sends it as this does
        headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    bare = urlunsplit(parts._replace(netloc=host))
    from urllib.request import Request, urlopen

    request = Request(bare, headers=headers)
    return urlopen(request, timeout=_TIMEOUT_SECONDS)
