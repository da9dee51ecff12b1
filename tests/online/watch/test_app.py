"""The page over HTTP: who is served, and what."""

import itertools
import json
from pathlib import Path

import pytest
from made_runs import make_run
from starlette.testclient import TestClient

from online.watch.app import watch_app
from online.watch.runs import Runs


def client(run: Path, *, token: str | None = None, host: str = "127.0.0.1") -> TestClient:
    """A browser; a stream of events ends after the first look."""
    looks = itertools.count()
    app = watch_app(Runs([run]), token=token, port=8642, is_closing=lambda: next(looks) % 2 == 1)
    return TestClient(app, base_url=f"http://{host}:8642")


def test_the_page_and_all_that_it_needs_come_from_here(tmp_path: Path) -> None:
    browser = client(make_run(tmp_path / "mine"))
    page = browser.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for part in ("/watch.js", "/watch.css"):
        assert part in page.text
        assert browser.get(part).status_code == 200
    assert "http" not in page.text


def test_events_bring_every_section_at_first(tmp_path: Path) -> None:
    browser = client(make_run(tmp_path / "mine"))
    stream = browser.get("/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    data = json.loads(stream.text.removeprefix("data: "))
    assert data["runs"] == ["mine"]
    assert data["shown"] == "mine"
    assert {"state", "words", "numbers", "curves", "probe", "counters", "events"} <= data.keys()


def test_a_run_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    browser = client(make_run(tmp_path / "mine"))
    data = json.loads(browser.get("/events?run=<b>x").text.removeprefix("data: "))
    assert "&lt;b&gt;x: no such run" in data["state"]
    assert browser.get("/report?run=x").status_code == 404


def test_only_files_of_the_named_runs_are_served(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine")
    (tmp_path / "report.html").write_text("not this one")
    browser = client(run)
    for name in ("..", "../mine", str(tmp_path), "/etc/passwd"):
        assert browser.get("/report", params={"run": name}).status_code == 404
    assert browser.get("/../../etc/passwd").status_code == 404
    assert browser.get("/report").status_code == 404
    (run / "report.html").write_text("this one")
    assert browser.get("/report").text == "this one"


def test_another_site_that_resolves_to_this_machine_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine")
    assert client(run, host="localhost").get("/").status_code == 200
    assert client(run, host="evil.example").get("/").status_code == 400


@pytest.mark.parametrize("path", ["/", "/events", "/watch.js", "/report"])
def test_without_the_token_nothing_is_served(path: str, tmp_path: Path) -> None:
    browser = client(make_run(tmp_path / "mine"), token="secret", host="lab.example")
    for query in ("", "?token=", "?token=Secret", "?token=sécret"):
        assert browser.get(path + query).status_code == 403


def test_the_token_is_asked_for_once_and_leaves_the_address(tmp_path: Path) -> None:
    browser = client(make_run(tmp_path / "mine"), token="secret", host="lab.example")
    page = browser.get("/?token=secret")
    assert page.status_code == 200
    assert str(page.url) == "http://lab.example:8642/"
    cookie = page.history[0].headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert browser.get("/events").status_code == 200
