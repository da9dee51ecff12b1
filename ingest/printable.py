"""Text from files and peers as it may be shown: without control characters or secrets."""

import re
import unicodedata

from ingest.addresses import without_secrets

MOST_CHARACTERS = 4000
"""Of a message: it may quote a name, a value or a list of any length."""

_HIDDEN = {"Cc", "Cf", "Zl", "Zp"}
"""Categories of Unicode that move the cursor, colour, or turn the direction of what follows."""
_AFTER_A_SCHEME = re.compile(r"://\S+")


def harmless(text: str) -> str:
    """Text in one line, with what a terminal would obey spelled out."""
    if text.isprintable():
        return text
    return "".join(map(_spelled_out, text))


def one_line(text: str) -> str:
    """Text in one harmless line; of a long one the beginning and the end."""
    return _shortened(harmless(_shortened(text)))


def message(text: str) -> str:
    """A message in one harmless line, in which addresses have no secrets."""
    return harmless(_AFTER_A_SCHEME.sub(_without_its_secrets, text))


def _without_its_secrets(found: re.Match[str]) -> str:
    address = found[0].rstrip(":,;.")
    return without_secrets(address) + found[0][len(address) :]


def _shortened(text: str) -> str:
    half = (MOST_CHARACTERS - 5) // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


def _spelled_out(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN and not "\ud800" <= character <= "\udfff":
        return character
    return character.encode("unicode_escape").decode()
