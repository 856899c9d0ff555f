"""Who may ask: origins behind a proxy, and cookies of two servers on one host."""

from __future__ import annotations

import os

import pytest
import requests

from agentstream import Runtime
from agentstream.cli import main
from agentstream.errors import ConfigError
from agentstream.web import create_app
from tests.kit.serve import Serve
from tests.kit.web_support import TOKEN, chunks, site

HTTPS = {"Host": "runs.example.org", "Origin": "https://runs.example.org"}


def test_y05_behind_a_proxy_that_ends_tls():
    with site(token=TOKEN, origins=["https://runs.example.org"]) as it:
        answer = requests.post(it.url + "/login", json={"token": TOKEN}, headers=HTTPS)
        assert answer.status_code == 204
        assert "; Secure" in answer.headers["Set-Cookie"]
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        chunks(it.events, "run", 1)
        headers = {**HTTPS, "Cookie": cookie}
        assert requests.get(it.url + "/workflows", headers=headers).status_code == 200
        stop = requests.post(it.url + "/workflows/run/stop", json={}, headers=headers)
        assert stop.status_code == 409
        for origin in ("https://evil.example.org", "http://runs.example.org", "null"):
            refused = requests.post(
                it.url + "/login", json={"token": TOKEN}, headers={**HTTPS, "Origin": origin}
            )
            assert refused.status_code == 403, origin
    with site(token=TOKEN) as it:
        refused = requests.post(it.url + "/login", json={"token": TOKEN}, headers=HTTPS)
        assert refused.status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "",
            "runs.example.org",
            "ftp://x",
            "https://",
            "https://x/y",
            "https://x?y",
            "https://x#y",
        ),
        *("https://me:secret@x", "https://x:99999", "https://x:y", "https://a b", "https://[::1"),
    ],
)
def test_y05_what_is_no_origin_is_refused(origin: str):
    with Runtime() as runtime, pytest.raises(ConfigError, match="origin"):
        create_app(runtime, origins=[origin])


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://RUNS.example.org/", "https://runs.example.org"),
        ("https://runs.example.org:443", "https://runs.example.org"),
        ("http://runs.example.org:8080", "http://runs.example.org:8080"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_y05_an_origin_as_browsers_write_it(given: str, sent: str):
    with site(token=TOKEN, origins=[given]) as it:
        headers = {"Host": sent.partition("://")[2], "Origin": sent}
        answer = requests.post(it.url + "/login", json={"token": TOKEN}, headers=headers)
        assert answer.status_code == 204
        assert ("; Secure" in answer.headers["Set-Cookie"]) == sent.startswith("https:")


def test_y05_serve_is_told_its_origins(tmp_path):
    arguments = ["--log", str(tmp_path / "runs.db"), "--port", "0"]
    for name in ("https://runs.example.org", "http://other.example:81"):
        arguments += ["--origin", name]
    with Serve(*arguments, AGENTSTREAM_TOKEN=TOKEN) as served:
        for origin, status in (
            ("https://runs.example.org", 204),
            ("http://other.example:81", 204),
            ("https://other.example", 403),
        ):
            headers = {"Host": origin.partition("://")[2], "Origin": origin}
            answer = requests.post(served.url + "/login", json={"token": TOKEN}, headers=headers)
            assert answer.status_code == status, origin
            if status == 204:
                assert ("; Secure" in answer.headers["Set-Cookie"]) == origin.startswith("https")


@pytest.mark.parametrize("origin", ["runs.example.org", "https://", "https://me:secret@x"])
def test_y05_serve_refuses_what_is_no_origin(tmp_path, capsys, origin: str):
    log = str(tmp_path / "runs.db")
    assert main(["serve", "--log", log, "--port", "0", "--origin", origin]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "origin" in printed.err
    assert printed.err.count("\n") == 1
    assert "secret" not in printed.err
    assert not os.path.exists(log)


def test_y05_two_servers_on_one_host_do_not_log_each_other_out():
    with site(token=TOKEN) as one, site(token=TOKEN + "2") as two:
        session = requests.Session()
        for it, token in ((one, TOKEN), (two, TOKEN + "2")):
            assert session.post(it.url + "/login", json={"token": token}).status_code == 204
        for it in (one, two):
            assert session.get(it.url + "/workflows").status_code == 200
