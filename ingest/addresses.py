"""Addresses: what is one and no path, and how it is shown without what is secret in it."""

import re

OBJECT_STORES = ("s3", "gs", "az")
"""What addresses of object storage begin with."""
NEEDS_OBSTORE = "object storage needs obstore; run pip install -e '.[scale]'"
"""What is said of such an address where the package is not installed."""
LOCAL_KINDS = ("v4l2", "x11grab", "lavfi")
"""What words for devices of this machine begin with, as `v4l2:/dev/video0`."""
CAMERA_FILE = "/dev/video"
"""What the files of cameras begin with."""
_CAMERA = re.compile(rf"(?:{CAMERA_FILE})?[0-9]{{1,2}}")

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CREDENTIALS = re.compile(r"(?<=://)([^/@:?#]*)(:.*)?@")
_SECRET = re.compile(
    r"(?<=[?&;])([^=&;#]*(?:user|usr|login|pass|pwd|token|secret|auth|key|sig|credential)[^=&;#]*)=[^&;#]*",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"\?(?:[^#]*&)?(?:X-Amz-|X-Goog-|sig=)[^#]*", re.IGNORECASE)
"""Of an address that is signed for a while, all that is asked of the server."""


def scheme_of(location: object) -> str:
    """What an address begins with, in lower case, such as `https`; nothing where it is a path."""
    found = _ADDRESS.match(location) if isinstance(location, str) else None
    return found[1].lower() if found else ""


def may_be_store(location: object) -> bool:
    """Whether a store can be there: in a folder, or in object storage."""
    return scheme_of(location) in ("", *OBJECT_STORES)


def is_address(location: object) -> bool:
    """Whether a source, a store or a device is an address, and not a path."""
    return bool(scheme_of(location))


def is_local_device(word: str) -> bool:
    """Whether a word that is no file means a device of this machine: `0`, `v4l2:/dev/video0`."""
    kind, _, rest = word.partition(":")
    return _CAMERA.fullmatch(word) is not None or (kind in LOCAL_KINDS and bool(rest))


def without_secrets(address: str) -> str:
    """An address without passwords, and without names and tokens in its query.

    A password may hold any character, so all up to the last `@` is taken for one.
    """
    before, mark, query = address.partition("?")
    if "@" in query:  # then the ? may be a part of the password
        before, mark, query = address, "", ""
    before = _CREDENTIALS.sub(lambda found: f"{found[1]}:***@" if found[2] else found[0], before)
    return before + _SECRET.sub(r"\1=***", _SIGNATURE.sub("", mark + query))
