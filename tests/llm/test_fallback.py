"""FallbackClient over real sockets: who is asked, how often, when, and what the caller sees."""

from __future__ import annotations

import contextlib
import gc
import itertools
import socket
import threading
import time
import weakref
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Type

import pytest

from agentstream import (
    Agent,
    Approval,
    AuthError,
    BadRequest,
    Cancelled,
    CancelToken,
    ChatMessage,
    ConfigError,
    ConnectError,
    Conversation,
    DeadlineExceeded,
    EventStream,
    FallbackClient,
    FirstTokenTimeout,
    LlamaClient,
    OpenAIClient,
    ProviderStreamError,
    RateLimited,
    Retries,
    Runtime,
    ServerError,
    SqliteStore,
    StreamTruncated,
)
from agentstream.errors import AgentStreamError, StatusError
from agentstream.events.model import EventType
from agentstream.llm.fallback import FALLS_OVER
from agentstream.llm.messages import Delta, FallbackNotice
from agentstream.testing import ScriptedClient, ScriptedServer, text_chunks
from agentstream.testing.actions import Cut, Gate, Hang, Pause
from agentstream.testing.pieces import chat_chunk, sse
from tests.kit.strict import STRICT
from tests.kit.support import KEY, ask, client_of

PAUSE = 30.0  # longer than any test: who failed once is not asked again


@contextlib.contextmanager
def servers(count: int = 2) -> Iterator[List[ScriptedServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ScriptedServer()) for _ in range(count)]


@contextlib.contextmanager
def fallback(*given: Any, **settings: Any) -> Iterator[FallbackClient]:
    """Of a client of each server, model "m1", "m2" ...; clients may be given as they are."""
    ours = {
        name: settings.pop(name) for name in ("pause", "max_pause", "on", "patience", "total")
        if name in settings
    }  # fmt: skip
    clients = [
        client_of(each, model=f"m{number}", **settings)
        if isinstance(each, (ScriptedServer, str))
        else each
        for number, each in enumerate(given, 1)
    ]
    with FallbackClient(clients, **{"pause": PAUSE, **ours}) as client:
        yield client


def notices(deltas: List[Delta]) -> List[FallbackNotice]:
    return [delta.retry for delta in deltas if isinstance(delta.retry, FallbackNotice)]


# --- the table of faults ----------------------------------------------------------------------

Script = Callable[[ScriptedServer], object]


class Fault(NamedTuple):
    """What the first server does.

    Attributes:
        play: queues it.
        error: what the first client fails with.
        status: as the notice has it.
        pause: seconds for which it is left alone.
        took: seconds until the second client is asked, (least, most).
        over: the second client is asked.
    """

    play: Script
    error: Type[AgentStreamError]
    status: Optional[int] = None
    pause: float = PAUSE
    took: Tuple[float, float] = (0.0, 1.0)
    over: bool = True


def _status(status: int, **headers: str) -> Script:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda server: server.reply_json({"error": "no"}, status=status, headers=given)


FAULTS: Dict[str, Fault] = {
    "429 with Retry-After": Fault(_status(429, Retry_After="7"), RateLimited, 429, pause=7.0),
    "429 without": Fault(_status(429), RateLimited, 429),
    "503": Fault(_status(503), ServerError, 503),
    "503 with Retry-After": Fault(_status(503, Retry_After="2"), ServerError, 503, pause=2.0),
    "silence before the headers": Fault(
        lambda server: server.reply(before_headers=[Hang()]), FirstTokenTimeout, took=(0.3, 1.5)
    ),
    "silence behind the headers": Fault(
        lambda server: server.reply(chat_chunk({"role": "assistant"}), Hang()),
        FirstTokenTimeout,
        took=(0.3, 1.5),
    ),
    "slow first token": Fault(
        lambda server: server.reply(Pause(5), chat_chunk({"content": "late"})),
        FirstTokenTimeout,
        took=(0.3, 1.5),
    ),
    "cut before the headers": Fault(lambda server: server.reply(before_headers=[Cut()]), ConnectError),
    "cut before the first delta": Fault(
        lambda server: server.reply(chat_chunk({"role": "assistant"}), Cut()), StreamTruncated
    ),
    "cut behind it": Fault(
        lambda server: server.reply(chat_chunk({"content": "half"}), Cut()),
        StreamTruncated,
        over=False,
    ),
    "error in the stream before it": Fault(
        lambda server: server.reply(sse({"error": {"message": "no", "code": "odd"}})),
        ProviderStreamError,
    ),
    "overloaded within a 200": Fault(
        lambda server: server.reply(sse({"error": {"message": "overloaded", "code": 503}})),
        ServerError,
        503,
    ),
    "error in the stream behind it": Fault(
        lambda server: server.reply(
            chat_chunk({"content": "half"}), sse({"error": {"message": "no"}})
        ),
        ProviderStreamError,
        over=False,
    ),
    "error behind reasoning": Fault(
        lambda server: server.reply(
            chat_chunk({"reasoning_content": "hm"}), sse({"error": {"message": "no"}})
        ),
        ProviderStreamError,
        over=False,
    ),
    "bad request": Fault(_status(400), BadRequest, 400, over=False),
    "no such model": Fault(_status(404), BadRequest, 404, over=False),
    "wrong key": Fault(_status(401), AuthError, 401, over=False),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_f01_f02_f03_f05_f06_f07_a_fault_of_the_first_client(name: str):
    fault = FAULTS[name]
    with servers() as (first, second), fallback(first, second, first_token=0.4) as client:
        fault.play(first)
        second.default(chat_chunk({"content": "hello"}, model="m2", finish_reason="stop"))
        result = ask(client)
        assert len(first.requests) == 1
        assert len(second.requests) == int(fault.over)
        told = notices(result.deltas)
        if not fault.over:
            assert type(result.error) is fault.error
            assert told == []
            return
        assert (result.error, result.text) == (None, "hello")
        assert (result.response.provider, result.response.model) == ("llama.cpp", "m2")
        least, most = fault.took
        assert least <= result.took <= most
        (notice,) = told
        assert notice[:4] == (1, "llama.cpp", "m1", fault.error.__name__)
        assert (notice.status, notice[-3:]) == (fault.status, (2, "llama.cpp", "m2"))
        assert notice.pause_s == pytest.approx(fault.pause, abs=0.1)
        # The first one is left alone now; times count from the call's beginning.
        assert result.response.first_token_s >= least
        assert ask(client).text == "hello"
        assert (len(first.requests), len(second.requests)) == (1, 2)


def test_f04_a_refused_connection_and_a_certificate_that_is_none():
    with socket.socket() as closed, ScriptedServer(tls=True) as tls, servers(1) as (last,):
        closed.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{closed.getsockname()[1]}"
        distrusting = client_of(tls.url, model="m2", verify=True)
        with fallback(refusing, distrusting, last) as client:
            last.reply_text("hi")
            result = ask(client)
        assert result.text == "hi"
        assert [notice.error for notice in notices(result.deltas)] == ["ConnectError"] * 2
        assert len(tls.requests) == 0


def test_f08_both_down_raises_the_last_error_and_tells_of_the_other():
    with servers() as (first, second), fallback(first, second) as client:
        _status(429, Retry_After="20")(first)
        _status(503)(second)
        result = ask(client)
        assert isinstance(result.error, ServerError)
        (earlier,) = result.error.earlier
        assert isinstance(earlier, RateLimited)
        assert earlier.retry_after == 20
        assert (len(first.requests), len(second.requests)) == (1, 1)
        # Now both are left alone: the one that is due first is asked, once.
        _status(429)(first)
        again = ask(client)
        assert isinstance(again.error, RateLimited)
        assert again.error.earlier == ()
        assert (len(first.requests), len(second.requests)) == (2, 1)


def test_who_is_left_alone_is_asked_as_the_last_of_all():
    with servers() as (first, second), fallback(first, second) as client:
        _status(503)(first)
        second.reply_text("two")
        assert ask(client).text == "two"
        _status(503)(second)
        first.reply_text("one")
        result = ask(client)
        assert result.text == "one"
        assert [(n.client, n.next_client) for n in notices(result.deltas)] == [(2, 1)]


def test_f09_after_its_pause_one_call_tries_a_client_and_the_others_do_not_wait():
    with servers() as (first, second), fallback(first, second, pause=0.05) as client:
        _status(503)(first)
        second.default(chat_chunk({"content": "two"}, finish_reason="stop"))
        ask(client)
        gate = Gate()
        first.reply(gate, chat_chunk({"content": "one"}, finish_reason="stop"))
        assert CancelToken().wait(0.06) is False
        found: List[str] = []
        threads = [
            threading.Thread(target=lambda: found.append(client.chat("hi").content))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        assert gate.wait_reached(1)
        for thread in threads[1:]:
            thread.join(0.2)
        assert len(first.requests) == 2
        gate.open()
        for thread in threads:
            thread.join(10)
        assert sorted(found) == ["one"] + ["two"] * 7
        first.reply_text("one again")
        assert client.chat("hi").content == "one again"


def test_a_clients_own_retries_come_first():
    retries = Retries(attempts=2, backoff=0.01)
    with servers() as (first, second), fallback(first, second, retries=retries) as client:
        for _ in range(3):
            _status(503)(first)
        _status(503)(second)
        second.reply_text("hi")
        result = ask(client)
        assert result.text == "hi"
        assert (len(first.requests), len(second.requests)) == (3, 2)
        kinds = [type(delta.retry).__name__ for delta in result.deltas if delta.retry]
        assert kinds == ["RetryNotice", "RetryNotice", "FallbackNotice", "RetryNotice"]


def test_who_would_wait_longer_than_its_patience_has_failed_while_another_is_ready():
    retries = Retries(attempts=2, backoff=0.01)
    with servers() as (first, second), fallback(first, second, retries=retries) as client:
        _status(429, Retry_After="9")(first)
        second.reply_text("two")
        result = ask(client)
        assert (result.text, len(first.requests)) == ("two", 1)
        assert result.took < 3
        assert [type(delta.retry).__name__ for delta in result.deltas if delta.retry] == [
            "FallbackNotice"
        ]
        assert notices(result.deltas)[0].pause_s == pytest.approx(9, abs=0.1)
    # Nobody else is ready: it waits as it does alone.
    with (
        servers() as (first, second),
        fallback(first, second, retries=retries, patience=0.05) as client,
    ):
        for server in (first, second):
            _status(503, Retry_After="0.1")(server)
            _status(503, Retry_After="0.1")(server)
        second.reply_text("two")
        assert ask(client).text == "two"
        assert (len(first.requests), len(second.requests)) == (1, 3)
    for patience, asked in ((None, 2), (0.5, 2), (0.05, 1)):
        with (
            servers() as (first, second),
            fallback(first, second, retries=retries, patience=patience) as client,
        ):
            _status(503, Retry_After="0.1")(first)
            first.reply_text("one")
            second.reply_text("two")
            assert ask(client).text == ("one" if asked == 2 else "two")
            assert len(first.requests) == asked


def test_only_errors_that_are_named_make_it_ask_the_next_one():
    rows = (
        (RateLimited, 503, ServerError),
        ((ServerError,), 429, RateLimited),
        ((AgentStreamError,), 400, BadRequest),  # a base class names neither
        ((StatusError,), 401, AuthError),
        ((AuthError,), 401, None),
        ((BadRequest,), 400, None),
    )
    for on, status, error in rows:
        with servers() as (first, second), fallback(first, second, on=on) as client:
            _status(status)(first)
            second.reply_text("hi")
            result = ask(client)
            assert type(result.error) is (error or type(None))
            assert len(second.requests) == int(error is None)


def test_a_bad_request_that_falls_over_pauses_nobody():
    with servers() as (first, second), fallback(first, second, on=BadRequest) as client:
        _status(400)(first)
        second.reply_text("two")
        assert ask(client).text == "two"
        first.reply_text("one")
        assert ask(client).text == "one"


def test_f06_a_client_whose_answer_broke_off_is_left_alone_too():
    with servers() as (first, second), fallback(first, second) as client:
        first.reply(chat_chunk({"content": "half"}), Cut())
        second.reply_text("whole")
        broken = ask(client)
        assert isinstance(broken.error, StreamTruncated)
        assert broken.text == broken.error.partial.content == "half"
        assert ask(client).text == "whole"


def test_what_a_failed_client_had_sent_without_words_is_not_told():
    with servers() as (first, second), fallback(first, second) as client:
        first.reply(chat_chunk({"role": "assistant"}, model="odd"), Cut())
        second.reply_text("hi", model="m2")
        result = ask(client)
        assert {delta.model for delta in result.deltas} - {None} == {"m2"}


def test_an_empty_answer_is_one():
    with servers() as (first, second), fallback(first, second) as client:
        first.reply(chat_chunk({}, finish_reason="stop"))
        result = ask(client)
        assert (result.error, result.text, len(second.requests)) == (None, "", 0)
        assert result.response.finish_reason == "stop"


# --- time -------------------------------------------------------------------------------------


def test_f10_total_holds_over_all_clients():
    for settings in ({"total": 0.8}, {"total": 0.8, "first_token": 0.5}):
        own = settings.pop("first_token", 0.5)
        with servers() as (first, second):
            clients = [client_of(s, first_token=own, **settings) for s in (first, second)]
            first.reply(Hang())
            second.reply(Hang())
            with FallbackClient(clients) as client:
                assert client.total == 0.8
                result = ask(client)
            assert isinstance(result.error, DeadlineExceeded)
            assert 0.7 <= result.took <= 1.3
            assert (len(first.requests), len(second.requests)) == (1, 1)


def test_f10_a_client_whose_own_total_is_shorter_is_followed_by_the_next():
    for total, on in ((None, FALLS_OVER), (20.0, FALLS_OVER), (20.0, (ServerError,))):
        with servers() as (first, second):
            first.reply(Hang())
            second.reply(*text_chunks("hi"))
            clients = [client_of(first, total=0.3), client_of(second, total=total)]
            with FallbackClient(clients, on=on, pause=PAUSE) as client:
                result = ask(client)
        if on is FALLS_OVER:
            assert result.error is None and result.text == "hi"
        else:
            assert isinstance(result.error, DeadlineExceeded)
        assert 0.3 <= result.took <= 0.9
        assert len(second.requests) == (on is FALLS_OVER)


def test_total_of_its_own_holds_for_the_first_client_as_well():
    with servers() as (first, second), fallback(first, second, total=0.3) as client:
        first.reply(chat_chunk({"content": "half"}), Hang())
        result = ask(client)
        assert isinstance(result.error, DeadlineExceeded)
        assert result.error.partial.content == "half"
        assert result.took <= 0.9
        assert second.requests == []


def test_f10_cancel_ends_it_at_once_wherever_it_is():
    def waiting_first(first: ScriptedServer, second: ScriptedServer) -> None:
        first.reply(Hang())

    def waiting_second(first: ScriptedServer, second: ScriptedServer) -> None:
        _status(503)(first)
        second.reply(Hang())

    def streaming_second(first: ScriptedServer, second: ScriptedServer) -> None:
        _status(503)(first)
        second.reply(chat_chunk({"content": "half"}), Hang())

    for total in (None, 20.0):
        for play in (waiting_first, waiting_second, streaming_second):
            with servers() as (first, second), fallback(first, second, total=total) as client:
                play(first, second)
                token = CancelToken()
                at: List[float] = []

                def cancel(
                    server: ScriptedServer = first if play is waiting_first else second,
                    token: CancelToken = token,
                    at: List[float] = at,
                ) -> None:
                    server.wait_requests(1)
                    token.wait(0.05)
                    at.append(time.monotonic())
                    token.cancel("enough")

                thread = threading.Thread(target=cancel)
                thread.start()
                result = ask(client, cancel=token)
                thread.join()
                assert isinstance(result.error, Cancelled)
                assert result.ended - at[0] < 0.3  # 10 ms, on a machine that is idle
                assert len(second.requests) == int(play is not waiting_first)


def test_a_call_that_is_dropped_between_two_clients_leaves_nobody_tried():
    with servers() as (first, second), fallback(first, second) as client:
        _status(503)(first)
        second.reply_text("hi")
        stream = client.stream_deltas(_request())
        assert isinstance(next(stream).retry, FallbackNotice)
        stream.close()
        assert second.requests == []
        assert client.chat("hi").content == "hi"


# --- what is asked ------------------------------------------------------------------------------


def _request(*messages: ChatMessage, **fields: Any) -> Any:
    from agentstream import ChatRequest  # noqa: PLC0415

    return ChatRequest(list(messages) or "hi", **fields)


def test_a_requests_model_is_the_first_clients():
    with servers() as (first, second), fallback(first, second) as client:
        _status(503)(first)
        second.reply_text("hi")
        client.chat("hi", model="special", temperature=0.5)
        bodies = [server.requests[0].json for server in (first, second)]
        assert [body["model"] for body in bodies] == ["special", "m2"]
        assert [body["temperature"] for body in bodies] == [0.5, 0.5]


def test_f12_a_client_that_cannot_make_the_request_is_passed_over_and_not_left_alone():
    with servers() as (first, second):
        responses = OpenAIClient(
            "r", api_key="k", base_url=first.url, api="responses", retries=Retries(0)
        )
        with fallback(responses, second) as client:
            second.default(chat_chunk({"content": "two"}, finish_reason="stop"))
            response = client.chat("hi", stop=["x"])
            assert (response.content, first.requests) == ("two", [])
            _status(503)(first)
            assert client.chat("hi").content == "two"
            assert len(first.requests) == 1


def test_what_no_client_can_make_is_said_and_what_the_asked_one_said_comes_first():
    with servers() as (first, second):
        chat = client_of(first)
        responses = OpenAIClient("r", api_key="k", base_url=second.url, api="responses")
        with FallbackClient([chat, responses]) as client:
            _status(503)(first)
            with pytest.raises(ServerError) as found:
                client.chat("hi", stop=["x"])
            (earlier,) = found.value.earlier
            assert isinstance(earlier, ConfigError)
            with pytest.raises(ConfigError):
                client.chat("hi", extra={"x": object()})
        assert second.requests == []


def _states(request: Any) -> List[Any]:
    return [message.provider_state for message in request.messages]


def test_provider_state_goes_home_and_nowhere_else():
    first = ScriptedClient(["one", Delta(provider_state={"secret": 1})], ServerError("down"), "three",
                           model="a")  # fmt: skip
    second = ScriptedClient(["two", Delta(provider_state={"secret": 2})], model="b")
    client = FallbackClient([first, second], pause=0.0)
    said: List[ChatMessage] = [ChatMessage.user("1")]
    for number in (2, 3):
        answer = client.chat(list(said))
        assert answer.provider_state is not None
        told = ChatMessage.assistant(answer.content, (), answer.provider_state)
        said += [told, ChatMessage.user(str(number))]
    client.chat(list(said))
    home = {"secret": 1, "origin": "scripted/a"}
    assert [_states(request) for request in first.requests] == [
        [None],
        [None, home, None],
        [None, home, None, None, None],
    ]
    assert [_states(request) for request in second.requests] == [[None, None, None]]


def test_f11_signed_reasoning_goes_back_to_its_server_alone_in_a_mixed_conversation():
    thought = {"reasoning_content": "hm", "content": "one"}
    with servers() as (first, second), fallback(first, second, pause=0.0) as client:
        first.reply(chat_chunk(thought), chat_chunk({}, finish_reason="stop"))
        said: List[Any] = [ChatMessage.user("1")]
        said.append(_message(client.chat(said)))
        said.append(ChatMessage.user("2"))
        _status(503)(first)
        second.reply(
            chat_chunk({"reasoning_content": "so", "content": "two"}),
            chat_chunk({}, finish_reason="stop"),
        )
        said.append(_message(client.chat(said)))
        said.append(ChatMessage.user("3"))
        first.reply_text("three")
        client.chat(said)
        told = [[m.get("reasoning_content") for m in r.json["messages"]] for r in first.requests]
        assert told == [[None], [None, "hm", None], [None, "hm", None, None, None]]
        (request,) = second.requests
        assert "hm" not in request.body.decode()


def _message(response: Any) -> ChatMessage:
    return ChatMessage.assistant(response.content, response.tool_calls, response.provider_state)


def test_f11_each_protocol_takes_a_conversation_that_others_answered_parts_of():
    for kind, other in itertools.permutations(STRICT, 2):
        with servers() as (first, second):
            strict = kind(first, [kind.rounds[3], ["Yes."]])
            lenient = type("Lenient", (other,), {"problem": lambda self, body: ""})
            clients = [strict.client(), lenient(second, [["Who knows."]]).client()]
            conversation = Conversation()
            with FallbackClient(clients, pause=0.0) as client:
                agent = Agent("seer", client, system_prompt="Be brief.")
                agent.run("So?", conversation=conversation)
                first.reply_json({"error": "no"}, status=503, path=strict.path)
                assert agent.run("And?", conversation=conversation).text == "Who knows."
                strict.hear("Who knows.")
                assert agent.run("Well?", conversation=conversation).text == "Yes."
            sent = second.requests[0].body.decode()
            assert [mark for mark in kind.marks if mark in sent] == []
            assert strict.refused == []


def test_a_paused_answer_without_words_goes_to_its_server_alone():
    paused = {"origin": "http://127.0.0.1:1/v1/messages", "goes_on": True}
    message = ChatMessage.assistant("", (), paused)
    second = ScriptedClient("go")
    client = FallbackClient([ScriptedClient(ServerError("down")), second])
    client.chat([ChatMessage.user("1"), message])
    (request,) = second.requests
    assert [m.role for m in request.messages] == ["user"]


# --- who uses it --------------------------------------------------------------------------------


def test_an_agents_events_tell_who_failed_and_who_is_next_and_hold_no_secret():
    with servers() as (first, second), fallback(first, second) as client:
        first.reply_json({"error": f"bad key {KEY}"}, status=503)
        second.reply_text("hi")
        stream = EventStream()
        output = Agent("poet", client).execute_with_events("sing", stream, workflow_id="w")
        events = list(stream.store.read(workflow_id="w", after=0, limit=100))
        stream.close()
        (event,) = [e for e in events if e.type is EventType.AGENT_FALLBACK]
        data = event.data
        assert (data["agent"], data["error"], data["status"]) == ("poet", "ServerError", 503)
        assert (data["model"], data["next_model"], data["pause_s"]) == ("m1", "m2", PAUSE)
        assert KEY not in event.to_json()
        done = next(e for e in events if e.type is EventType.AGENT_LLM_REQUEST_COMPLETED)
        assert (done.data["provider"], done.data["model"]) == ("llama.cpp", "scripted")
        assert output.chat_response.provider == "llama.cpp"


def test_tools_of_an_agent_are_called_whoever_answers():
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    with servers() as (first, second), fallback(first, second, pause=0.0) as client:
        first.reply_tool_calls(("add", {"a": 1, "b": 2}))
        _status(503)(first)
        second.reply_text("3")
        output = Agent("adder", client, tools=[add]).run("1 + 2?")
        assert (output.response, output.tool_calls_count) == ("3", 1)
        told = second.requests[0].json["messages"]
        assert [message["role"] for message in told] == ["user", "assistant", "tool"]


def test_a_typed_answer_may_be_begun_by_one_and_corrected_by_another():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with servers() as (first, second), fallback(first, second, pause=0.0) as client:
        first.reply_text('{"n": "x"}')
        _status(503)(first)
        second.reply_text('{"n": 7}')
        response = client.chat("n?", output=schema)
        assert response.value == {"n": 7}
        assert len(second.requests[0].json["messages"]) > 2


def test_what_failed_is_let_go_of_without_the_garbage_collector():
    error = ServerError("down")
    gone, client = weakref.ref(error), FallbackClient([ScriptedClient(error), ScriptedClient("hi")])
    del error
    gc.disable()
    try:
        client.chat("hi")
        assert gone() is None
    finally:
        gc.enable()


def test_fallbacks_nest_and_close_all_of_theirs():
    with servers(3) as (a, b, c):
        inner = FallbackClient([client_of(b, model="b"), client_of(c, model="c")])
        with FallbackClient([client_of(a, model="a"), inner]) as client:
            for server in (a, b):
                _status(503)(server)
            c.reply_text("hi", model="c")
            result = ask(client)
            told = [(n.model, n.next_model) for n in notices(result.deltas)]
            assert told == [("a", "b"), ("b", "c")]
            assert (result.text, result.response.model) == ("hi", "c")
            for number, server in enumerate((a, b, c)):
                _status(500 + number)(server)
                _status(500 + number)(server)
            error = ask(FallbackClient([*client.clients])).error
            assert isinstance(error, ServerError)
            assert [one.status for one in (*error.earlier, error)] == [500, 502, 501]
        assert all(server.wait_idle() for server in (a, b, c))


def test_models_are_those_of_all_and_who_does_not_say_is_passed_over():
    with servers() as (first, second), fallback(first, second) as client:
        first.reply_json({"data": [{"id": "x"}, {"id": "y"}]})
        second.reply_json({"data": [{"id": "y"}, {"id": "z"}]})
        assert client.models() == ["x", "y", "z"]
        _status(503)(first)
        second.reply_json({"data": [{"id": "z"}]})
        assert client.models() == ["z"]
        for server in (first, second):
            _status(503)(server)
        with pytest.raises(ServerError) as found:
            client.models()
        assert len(found.value.earlier) == 1


def test_settings_that_cannot_be_used():
    one = ScriptedClient("x")
    rows: List[Tuple[Any, Dict[str, Any]]] = [
        ([], {}),
        (one, {}),
        (None, {}),
        ([one, "b"], {}),
        ([one, one], {}),
        ([one], {"on": (ValueError,)}),
        ([one], {"on": (Cancelled,)}),
        ([one], {"on": (DeadlineExceeded,)}),
        ([one], {"on": "429"}),
        ([one], {"on": 5}),
        ([one], {"pause": -1}),
        ([one], {"max_pause": "x"}),
        ([one], {"total": 0}),
        ([one], {"patience": -1}),
    ]
    for clients, settings in rows:
        with pytest.raises(ConfigError):
            FallbackClient(clients, **settings)


def test_what_it_says_of_itself():
    a, b = LlamaClient(model="a"), ScriptedClient("x", model="b")
    with FallbackClient([a, b]) as client:
        assert (client.model, client.provider) == ("a", "llama.cpp")
        assert client.schema_with_tools is False
        assert client.parallel_tool_calls is None
        assert "'a'" in repr(client)
        assert "'b'" in repr(client)
        assert client.total is None


def test_a_run_that_is_resumed_goes_on_with_whichever_client_answers(tmp_path: Any):
    def pay() -> str:
        """Pay."""
        return "paid"

    def runtime() -> Runtime:
        return Runtime(event_stream=EventStream(SqliteStore(str(tmp_path / "r"))), checkpoints=True)

    with servers() as (first, second), fallback(first, second, pause=0.0) as client:
        agent = Agent("payer", client, tools=[pay], approve=lambda _: Approval.later())
        first.reply_tool_calls(("pay", {}))
        with runtime() as one:
            (pending,) = one.run(agent, "pay!", workflow_id="r").pending
        _status(503)(first)
        second.reply_text("It is paid.")
        with runtime() as other:
            run = other.resume(agent, "r", {pending.id: True}).result(20)
            kept = list(other.event_stream.store.read(workflow_id="r", after=0, limit=100))
        assert run.output == "It is paid."
        assert [e.type for e in kept].count(EventType.AGENT_FALLBACK) == 1
        told = second.requests[0].json["messages"]
        assert [message["role"] for message in told] == ["user", "assistant", "tool"]
