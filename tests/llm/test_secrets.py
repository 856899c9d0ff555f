"""Keys in the forms in which a server may echo them (B15)."""

from __future__ import annotations

import base64
import json

from tests.kit.failures import status_error
from tests.kit.support import KEY, ask, client_of, hunt

SECRET = "s3cr3t/+?& wörd"


def test_b15_a_key_percent_quoted_in_json_in_html_in_base64():
    url_form = "s3cr3t%2F%2B%3F%26%20w%C3%B6rd"
    forms = [
        SECRET,
        url_form,
        url_form.lower(),
        url_form.replace("%20", "+"),
        json.dumps(SECRET),
        "s3cr3t/+?&amp; wörd",
    ]
    for form in forms:
        error = status_error(500, f"you sent {form}", keys=[SECRET])
        assert "s3cr3t" not in str(error) + error.body, form


def test_b15_the_header_made_of_a_url(server):
    url = server.url.replace("://", "://user:pass-word-MARKEDKEY@")
    basic = base64.b64encode(b"user:pass-word-MARKEDKEY").decode()
    for said in (f"Basic {basic}", basic):
        server.reply_json(
            {"error": f"bad header {said}"}, status=400, headers={"x-request-id": f"r-{said}"}
        )
        with client_of(url, api_key=None) as client:
            result = ask(client)
        assert basic not in str(result.error) + result.error.body + result.error.request_id


def test_b15_a_request_id_that_holds_the_key(server):
    server.reply_json({"error": "no"}, status=400, headers={"x-request-id": f"id-{KEY}"})
    with client_of(server) as client:
        hunt(ask(client).error.request_id)
