"""Rows of docs/faults.rst that belong to a dialect, over all five clients: one table.

What only one protocol can do wrong is in its own room's tests.
"""

from __future__ import annotations

import json
import ssl

import pytest

from agentstream import Agent, CancelToken, ChatRequest, Limits, errors, tool
from agentstream.llm.settings import Retries
from agentstream.testing import Cut, Hang, Pause, ScriptedServer
from tests.kit.streams import heard, play
from tests.kit.support import KEY, PROMPT, ask, hunt
from tests.kit.wires import WIRES

each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
NOWHERE = "http://127.0.0.1:1"
TWICE = Retries(2, backoff=0.0)


def asked(server, wire, *pieces, prompt=PROMPT, on_delta=None, cancel=None, **settings):
    """What a call comes to whose answer is `pieces`."""
    server.reply(*pieces, content_type=wire.content_type)
    with wire.client(server.url, **settings) as client:
        return ask(client, prompt, on_delta=on_delta, cancel=cancel)


# --- answers --------------------------------------------------------------------------------


@each_wire
def test_w14_w16_all_of_an_answer_in_the_same_words(server, wire):
    result = asked(server, wire, *wire.whole())
    assert result.error is None
    response = result.response
    assert (response.content, response.reasoning) == ("Gr\u00fc\u00dfe.", "Hm \u00e9.")
    assert [(call.name, json.loads(call.arguments)) for call in response.tool_calls] == [
        ("look", {"at": "\u00e9 \U0001f600"}),
        ("go", {}),
    ]
    assert all(call.id for call in response.tool_calls)
    assert response.finish_reason == "tool_calls"
    assert response.usage[:3] == (10, 3, 13)
    assert not response.usage.estimated
    assert response.model == "scripted"
    assert response.warnings == ()
    ids = {"responses": "resp_scripted", "anthropic": "msg_scripted", "ollama": None}
    assert response.response_id == ids.get(wire.name, "chatcmpl-scripted")
    own = {"responses": "completed", "anthropic": "tool_use", "ollama": "stop"}
    assert response.native_finish_reason == own.get(wire.name, "tool_calls")
    (request,) = server.requests
    assert request.path.partition("?")[0] == wire.path


@each_wire
def test_n14_in_pieces_of_a_byte_it_is_the_same(wire):
    body = b"".join(wire.whole())
    whole = play([body], wire.client(NOWHERE))
    bytewise = play([body[i : i + 1] for i in range(len(body))], wire.client(NOWHERE))
    assert whole[2] is bytewise[2] is None
    assert whole[1][:6] == bytewise[1][:6] or wire.name == "ollama"  # its ids are ours
    assert whole[0] == bytewise[0]


@each_wire
def test_n10_cut_at_every_byte_it_is_typed_and_nothing_is_invented(wire):
    body = b"".join(wire.whole())
    whole = play([body], wire.client(NOWHERE))[1]
    told = [(call.name, call.arguments) for call in whole.tool_calls]
    last = body.rstrip(b"\n").rindex(b"\n")  # where the line that ends it begins
    client = wire.client(NOWHERE)
    for place in range(len(body)):
        deltas, response, error = heard(client, [body[:place]])
        if error is None:  # its end had come, but for what follows that
            assert response.finish_reason == whole.finish_reason, place
            assert place > last or wire.name in ("chat", "llama", "anthropic"), place
        else:
            assert type(error) in (errors.StreamTruncated, errors.ProtocolError), place
            assert response.finish_reason is None, place
        assert whole.content.startswith(response.content), place
        assert whole.reasoning.startswith(response.reasoning), place
        assert "".join(delta.content for delta in deltas) == response.content, place
        for call, (name, arguments) in zip(response.tool_calls, told):
            assert call.name == name, place
            assert arguments.startswith(call.arguments), place


@each_wire
def test_w07_signs_of_life_between_all_pieces_change_nothing(wire):
    idle = [wire.idle]
    if wire.content_type == "text/event-stream":
        idle += [
            b"data:\n\n",
            b"data\n\n",
            b"data:   \n\n",
            b": x\n\n",
            b"event: ping\ndata: {}\n\n",
        ]
    whole = play(wire.whole(), wire.client(NOWHERE))
    for life in idle:
        pieces = [piece for one in wire.whole() for piece in (life, one)]
        deltas, response, error = play(pieces, wire.client(NOWHERE))
        assert error is None, life
        assert (response.content, response.reasoning) == whole[1][:2], life
        assert [call[1:] for call in response.tool_calls] == [call[1:] for call in whole[1][2]]
        assert response.finish_reason == whole[1].finish_reason, life


@each_wire
def test_p01_p02_p07_lines_bytes_and_characters_in_every_form(wire):
    body = b"".join(wire.whole())
    for end in (b"\r\n", b"\r") if wire.name != "ollama" else (b"\r\n",):
        deltas, response, error = play([body.replace(b"\n", end)], wire.client(NOWHERE))
        assert (error, response.content) == (None, "Gr\u00fc\u00dfe."), end
    bad = b"".join(wire.answer("Gr#e", "."))
    _, response, error = play([bad.replace(b"#", b"\xff")], wire.client(NOWHERE))
    assert (error, response.content) == (None, "Gr\ufffde.")
    assert any("UTF-8" in warning for warning in response.warnings)
    pieces = wire.answer("a\ud83d", "\ude00b", "\ud83d", reasoning="\ud83d")
    deltas, response, error = play(pieces, wire.client(NOWHERE))
    assert (error, response.content) == (None, "a\U0001f600b\ufffd")
    assert response.reasoning == "\ufffd"
    "".join(delta.content + delta.reasoning for delta in deltas).encode()


@each_wire
def test_p08_numbers_and_depths_that_no_parser_takes(wire):
    for junk in ("[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}", '{"x": NaN}'):
        data = junk.encode() + b"\n"
        piece = data if wire.name == "ollama" else b"data: " + data + b"\n"
        pieces = [*wire.answer("Hel", ended=None), piece, *wire.answer("lo")]
        _, response, error = play(pieces, wire.client(NOWHERE))
        assert error is None or type(error) is errors.ProtocolError, junk[:20]
        assert response.content.startswith("Hel")


# --- endings --------------------------------------------------------------------------------


@each_wire
def test_w10_v06_a_limit_is_told_alike(server, wire):
    result = asked(server, wire, *wire.answer("Half of", ended="length"))
    assert result.error is None
    assert result.response.finish_reason == "length"
    own = {"responses": "max_output_tokens", "anthropic": "max_tokens"}
    assert result.response.native_finish_reason == own.get(wire.name, "length")
    assert any("cut" in warning for warning in result.response.warnings)


@tool
def wipe(path: str = "/") -> str:
    """Wipe."""
    raise AssertionError("it was cut, and must not be made")


@each_wire
def test_w06_a_call_in_which_the_answer_was_cut_is_not_made(server, wire):
    half = {} if wire.name == "ollama" else '{"path": "/tmp/a'  # there they come whole
    pieces = wire.answer("I wipe.", calls=(("wipe", half),), ended="length")
    if wire.name == "ollama":
        pieces[-2] = pieces[-2].replace(b'"arguments":{}', b'"arguments":"{\\"path\\": \\"/t"')
    server.reply(*pieces, content_type=wire.content_type)
    server.reply(*wire.answer("Then not."), content_type=wire.content_type)
    with wire.client(server.url) as client:
        output = Agent("a", client=client, tools=[wipe]).execute("Wipe a.")
    assert output.response == "Then not."
    assert "cut" in json.dumps(server.requests[1].json)


# --- failures -------------------------------------------------------------------------------


@each_wire
def test_v05_w08_an_error_in_mid_stream_keeps_what_came_and_is_not_retried(server, wire):
    pieces = [*wire.answer("Hel", "lo", ended=None), wire.error("server_error", "engine died")]
    result = asked(server, wire, *pieces, retries=TWICE)
    assert type(result.error) is errors.ProviderStreamError
    assert "engine died" in str(result.error)
    assert result.text == "Hello"
    assert len(server.requests) == 1


@each_wire
def test_w09_w11_an_error_in_place_of_an_answer_is_what_its_status_would_be(server, wire):
    server.reply(wire.error("overloaded_error", "overloaded"), content_type=wire.content_type)
    result = asked(server, wire, *wire.answer("Good."), retries=TWICE)
    assert (result.error, result.text, len(server.requests)) == (None, "Good.", 2)
    server.reply_json({"error": {"code": 503, "message": "overloaded"}})
    result = asked(server, wire, *wire.answer("Good."), retries=TWICE)
    assert (result.error, result.text, len(server.requests)) == (None, "Good.", 4)


@each_wire
def test_w12_w13_what_a_status_says_of_another_try_is_heeded(server, wire):
    def failing(status, said, headers=(), good=True):
        before = len(server.requests)
        server.reply_json({"error": said}, status=status, headers=headers)
        if good:
            server.reply(*wire.answer("Good."), content_type=wire.content_type)
        with wire.client(server.url, retries=Retries(1, backoff=0.0)) as client:
            result = ask(client)
        return result, len(server.requests) - before

    for status in (408, 409, 425, 429, 500, 503, 529):
        assert failing(status, {"message": "later"})[0].text == "Good.", status
    result, tries = failing(429, {"message": "later"}, [("retry-after-ms", "20")])
    assert result.retries[0].delay_s >= 0.02
    quota = {"code": "insufficient_quota", "message": "no"}
    result, tries = failing(429, quota, good=False)
    assert (type(result.error), result.error.retryable, tries) == (errors.RateLimited, False, 1)
    result, tries = failing(503, {"message": "no"}, [("x-should-retry", "false")], good=False)
    assert (type(result.error), tries) == (errors.ServerError, 1)
    for status, kind in ((400, errors.BadRequest), (401, errors.AuthError)):
        result, tries = failing(status, {"message": "not so"}, good=False)
        assert (type(result.error), tries) == (kind, 1)
        assert "not so" in str(result.error)


@each_wire
def test_n08_n09_a_connection_that_ends_is_retried_before_the_first_delta_only(server, wire):
    server.reply(Cut(), content_type=wire.content_type)
    result = asked(server, wire, *wire.answer("Good."), retries=TWICE)
    assert (result.error, result.text) == (None, "Good.")
    result = asked(server, wire, *wire.answer("Hel", ended=None), Cut(), retries=TWICE)
    assert type(result.error) is errors.StreamTruncated
    assert (result.text, len(server.requests)) == ("Hel", 3)


@each_wire
def test_p05_p09_what_is_no_stream_is_said(server, wire):
    server.reply("<html><title>Welcome</title>", content_type="text/html")
    with wire.client(server.url) as client:
        result = ask(client)
    assert type(result.error) is errors.ProtocolError
    assert "Welcome" in str(result.error)
    junk = b"{half\n" if wire.name == "ollama" else b"data: {half\n\n"
    result = asked(server, wire, *wire.answer("Hel", ended=None), junk, *wire.answer("lo"))
    assert type(result.error) is errors.ProtocolError
    assert result.text == "Hel"


# --- clocks, stops, limits ------------------------------------------------------------------


@each_wire
def test_n04_n05_n06_n07_four_clocks(server, wire):
    hello = wire.answer("Hel", ended=None)
    result = asked(server, wire, Hang(), first_token=0.1)
    assert type(result.error) is errors.FirstTokenTimeout
    life = [piece for _ in range(30) for piece in (wire.idle, Pause(0.02))]
    result = asked(server, wire, *life, Hang(), first_token=0.15, stall=0.15)
    assert type(result.error) is errors.FirstTokenTimeout
    result = asked(server, wire, *hello, Hang(), stall=0.1)
    assert (type(result.error), result.text) == (errors.StallTimeout, "Hel")
    drip = [piece for _ in range(30) for piece in (*wire.answer("x", ended=None)[-1:], Pause(0.02))]
    result = asked(server, wire, *hello, *drip, Hang(), total=0.4)
    assert type(result.error) is errors.DeadlineExceeded
    assert result.text.startswith("Hel")
    with ScriptedServer() as silent:
        silent.on_connect(Hang())
        url = silent.url.replace("http:", "https:")
        with wire.client(url, connect=0.1) as client:
            assert type(ask(client).error) is errors.ConnectTimeout


@each_wire
def test_x01_x02_x03_a_stop_in_each_phase(server, wire):
    hello, token = wire.answer("Hel", ended=None), CancelToken()

    def stop(delta):
        if delta.content or delta.retry:
            token.cancel("enough")

    result = asked(server, wire, *hello, Hang(), cancel=token, on_delta=stop)
    assert (type(result.error), result.text) == (errors.Cancelled, "Hel")
    with wire.client(server.url) as client:  # before it began
        assert type(ask(client, cancel=token).error) is errors.Cancelled
    assert len(server.requests) == 1
    token = CancelToken()
    server.route(wire.path, lambda _: (token.cancel("enough"), wire.reply(Hang()))[1])
    with wire.client(server.url) as client:  # before the headers
        assert type(ask(client, cancel=token).error) is errors.Cancelled
    token = CancelToken()
    server.reply_json({"error": {"message": "later"}}, status=503)
    with wire.client(server.url, retries=Retries(1, backoff=30.0, max_backoff=30.0)) as client:
        assert type(ask(client, cancel=token, on_delta=stop).error) is errors.Cancelled


@each_wire
def test_p12_limits_hold(server, wire):
    def limited(*pieces, **limits):
        result = asked(server, wire, *pieces, limits=Limits(**limits))
        assert type(result.error) is errors.LimitExceeded, limits
        assert result.error.limit in limits
        return result

    assert limited(*wire.answer("Hel", "lo" * 100), answer=50).text == "Hel"
    limited(*wire.answer("x" * 10_000), event=2000)
    limited(*wire.answer(calls=(("f", {"a": "x" * 5000}),)), tool_arguments=100)
    limited(*wire.answer("x" * 10_000), line=2000)


# --- secrets and addresses ------------------------------------------------------------------


@each_wire
def test_s05_what_a_server_echoes_shows_no_secret(server, wire):
    """`ask` hunts for key and prompt in errors, reprs and logs."""
    said = f"bad key {KEY} for {PROMPT}"
    server.reply_json({"error": {"message": said}}, status=401, headers=[("x-request-id", KEY)])
    with wire.client(server.url) as client:
        result = ask(client)
        hunt(repr(client))
    assert type(result.error) is errors.AuthError
    for pieces in (
        [wire.error("oops", said)],
        [*wire.answer("a", ended=None), wire.error("oops", said)],
        [*wire.answer("a", ended=None), b"data: {" + said.encode() + b"\n\n", *wire.answer("b")],
    ):
        assert asked(server, wire, *pieces).error is not None


@each_wire
def test_e01_the_query_of_a_base_url_stays_behind_the_path(server, wire):
    server.reply(*wire.answer("Yes."), content_type=wire.content_type)
    with wire.client(server.url + "/v1?api-version=1") as client:
        assert ask(client).text == "Yes."
    path, _, query = server.requests[0].path.partition("?")
    assert query == "api-version=1"
    assert path.endswith(wire.path.rpartition("/v1")[2])
    assert path.count("/v1") <= 1


@each_wire
def test_e04_e05_a_key_goes_where_it_was_given_for(server, wire, monkeypatch):
    for name in ("OPENAI", "ANTHROPIC", "OLLAMA"):
        monkeypatch.setenv(f"{name}_API_KEY", "sk-of-the-environment-0123456789")
    with wire.make(server.url) as client:  # another's server
        server.reply(*wire.answer("Yes."), content_type=wire.content_type)
        ask(client)
    with wire.make(server.url, headers={"Authorization": "Bearer given"}) as client:
        server.reply(*wire.answer("Yes."), content_type=wire.content_type)
        ask(client)
    first, second = (dict(request.headers) for request in server.requests)
    assert "sk-of" not in str(first) + str(second)
    assert "Bearer given" in str(second)


@each_wire
def test_e03_the_ssl_context_of_ones_own(wire, tls_server):
    context = ssl.create_default_context(cafile=tls_server.ca_file)
    assert asked(tls_server, wire, *wire.answer("Yes."), verify=context).text == "Yes."
    result = asked(tls_server, wire, *wire.answer("Yes."))
    assert type(result.error) is errors.ConnectError


@each_wire
def test_e02_a_proxy_that_is_none_is_named_and_not_tried(wire, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://[::1")
    monkeypatch.setenv("http_proxy", "http://[::1")
    with wire.client("http://example.invalid", retries=TWICE) as client:
        with pytest.raises(errors.ConfigError, match="(?i)http_proxy"):
            client.chat("hi")


# --- what is asked --------------------------------------------------------------------------


@each_wire
def test_t07_one_call_at_a_time_is_said_or_held_to(server, wire):
    request = ChatRequest(
        [{"role": "user", "content": "hi"}],
        tools=[wipe.to_openai()],
        parallel_tool_calls=False,
    )
    asked(server, wire, *wire.answer("Yes."), prompt=request)
    sent = json.dumps(server.requests[-1].json)
    said = '"disable_parallel_tool_use": true' in sent or '"parallel_tool_calls": false' in sent
    assert said or wire.name == "ollama"  # which has no word for it; the agent runs them in turn
