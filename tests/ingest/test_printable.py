from pathlib import Path

import pytest

from ingest.addresses import is_address, without_secrets
from ingest.printable import harmless, message


def test_what_a_terminal_would_obey_is_spelled_out():
    assert harmless("Küche, 2. Stock é") == "Küche, 2. Stock é"
    assert harmless("a\x1b[31mred\r\n\x9b2J\u202eb\x07") == (
        "a\\x1b[31mred\\r\\n\\x9b2J\\u202eb\\x07"
    )
    assert harmless("\udcff") == "\\udcff"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:pa/ss@porch:554/stream", "rtsp://me:***@porch:554/stream"),
        ("rtsp://me:p@ss@porch/a", "rtsp://me:***@porch/a"),
        ("rtsp://me:p?q#r@porch/a", "rtsp://me:***@porch/a"),
        (
            "rtsp://porch/a?user=me&password=hu/sh&fps=5",
            "rtsp://porch/a?user=***&password=***&fps=5",
        ),
        ("http://porch/mjpg?usr=me&pwd=hush", "http://porch/mjpg?usr=***&pwd=***"),
        ("tcp://0.0.0.0:5000?listen=1", "tcp://0.0.0.0:5000?listen=1"),
        ("rtsp://me@porch/a", "rtsp://me@porch/a"),
        ("rtsp://me:pw?sig=foo@porch/a", "rtsp://me:***@porch/a"),
        ("https://host/b/a.mp4?X-Amz-Date=1&X-Amz-Signature=2", "https://host/b/a.mp4"),
        ("https://host/a.mp4?part=2&sig=ab%2F", "https://host/a.mp4"),
        ("/films/a@b.mp4", "/films/a@b.mp4"),
    ],
)
def test_no_address_is_shown_with_its_credentials(address, shown):
    assert without_secrets(address) == shown


def test_what_begins_with_a_scheme_is_an_address():
    for address in ("https://host/a.mp4", "s3://bucket/store", "RTSP://porch/1", "x://y"):
        assert is_address(address)
    for path in ("C:/video.mp4", "a/b.mp4", "//share/a.mp4", Path("s3://bucket"), "lavfi:testsrc"):
        assert not is_address(path)


def test_a_message_tells_no_secret_of_an_address_in_it() -> None:
    said = message("http://me:pw@host/a.mp4?token=T0K&part=2: 2 tracks\x1b[31m, see rtsp docs")
    assert said == "http://me:***@host/a.mp4?token=***&part=2: 2 tracks\\x1b[31m, see rtsp docs"
    assert (
        message("tcp://me:pw@0.0.0.0:5555: no address") == "tcp://me:***@0.0.0.0:5555: no address"
    )
    assert message("1https://u:p@h") == "1https://u:***@h"
    long = "a" * 1_000_000  # a pattern that tries again from each letter takes hours
    assert message(long) == long
