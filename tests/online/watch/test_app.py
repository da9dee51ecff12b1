"""The page over HTTP: who is served, and what."""

import itertools
import json
import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from made_runs import make_run
from starlette.testclient import TestClient

from online.errors import ConfigError
from online.runs.lock import RunLock
from online.watch.app import watch_app
from online.watch.live import Live
from online.watch.runs import Runs
from online.watch.sections import state
from online.watch.server import serve_page


def client(
    run: Path, *, token: str | None = None, host: str = "127.0.0.1", listens_at: str = "127.0.0.1"
) -> TestClient:
    """A browser; a stream of events ends after the first look."""
    looks = itertools.count()
    app = watch_app(
        Runs([run]),
        token=token,
        port=8642,
        is_closing=lambda: next(looks) % 2 == 1,
        host=listens_at,
    )
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


@pytest.mark.parametrize("status", ['{"step": null}', '{"share": "x"}', '{"eta_seconds": []}'])
def test_a_status_that_no_trainer_writes_is_a_note(status: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine")
    (run / "status.json").write_text(status)
    lock = RunLock(run)
    lock.take()
    try:
        answer = client(run).get("/events")
    finally:
        lock.release()
    assert answer.status_code == 200
    assert json.loads(answer.text.removeprefix("data: "))["runs"] == ["mine"]


def test_a_limit_of_time_is_told_next_to_the_steps() -> None:
    status = {"activity": "learning", "step": 157, "steps": 2500}
    assert "step 157 of 2,500<" in state(Live("at work", status), None)
    limited = state(Live("at work", status | {"budget_seconds": 60.0}), None)
    assert "step 157 of 2,500, or as many as 1 min 0 s allow<" in limited


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


@pytest.mark.parametrize(
    ("listens_at", "host"),
    [("::1", "[::1]"), ("0:0:0:0:0:0:0:1", "[::1]"), ("127.0.0.2", "127.0.0.2")],
)
def test_any_loopback_address_serves_its_own_name(
    listens_at: str, host: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "mine")
    assert client(run, host=host, listens_at=listens_at).get("/").status_code == 200
    assert client(run, host="evil.example", listens_at=listens_at).get("/").status_code == 400


def test_a_report_of_another_person_cannot_run_scripts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine")
    (run / "report.html").write_text("<script>alert(1)</script>")
    headers = client(run).get("/report").headers
    assert headers["content-security-policy"].startswith("default-src 'none'; img-src data:;")
    assert "script-src" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_a_run_whose_name_is_not_unicode_is_shown_and_found(tmp_path: Path) -> None:
    run = make_run(tmp_path / os.fsdecode(b"caf\xe9"))
    (run / "report.html").write_text("of the caf\u00e9")
    browser = client(tmp_path)
    data = json.loads(browser.get("/events").text.removeprefix("data: "))
    (name,) = data["runs"]
    assert data["shown"] == name == r"caf\udce9"
    assert browser.get("/report", params={"run": name}).text == "of the caf\u00e9"


@pytest.mark.parametrize("token", ["", "fifteen-letters", "sixteen-létters!"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token: str, tmp_path: Path) -> None:
    runs = Runs([make_run(tmp_path / "mine")])
    with pytest.raises(ConfigError, match=r"^--token: \d+ characters; give at least 16 [^\n]*$"):
        serve_page(runs, host="0.0.0.0", port=0, token=token, ready=lambda address: None)


def test_the_address_that_is_printed_holds_any_token(tmp_path: Path) -> None:
    runs, token = Runs([make_run(tmp_path / "mine")]), "a&b#c d+e%f/g?hi"
    said: list[str] = []

    def stop(address: str) -> None:
        said.append(address)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve_page(runs, port=0, token=token, ready=stop)
    address = urlsplit(said[0])
    assert address.fragment == ""
    assert parse_qs(address.query) == {"token": [token]}


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
    assert "SameSite=lax" in cookie  # a link from elsewhere opens the page
    assert browser.get("/events").status_code == 200
