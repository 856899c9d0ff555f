"""docs/faults.rst W01 to W06, B11, B17: the pieces of tool calls, as servers send them."""

from __future__ import annotations

import json
import time

import pytest

from agentstream.agent import Agent
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chat.chunks import ChunkReader
from agentstream.testing.pieces import DONE, chat_chunk
from agentstream.tools import tool
from tests.kit.support import client_of


def c(index, id, name, arguments):
    """A piece of a tool call; None leaves a field out."""
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    piece = {"index": index, "id": id, "function": function}
    return {key: value for key, value in piece.items() if value is not None}


def answer_to(*chunks, finish="tool_calls", native=None):
    """The answer that chunks (each a piece, or a list of them) come to; deltas must give the same."""
    reader, answer = ChunkReader(), Accumulator()
    deltas = []
    for pieces in chunks:
        delta = {"tool_calls": pieces if isinstance(pieces, list) else [pieces]}
        deltas.append(reader.read({"choices": [{"index": 0, "delta": delta}]}))
    end = {"index": 0, "delta": {}, "finish_reason": finish, "native_finish_reason": native}
    deltas += [reader.read({"choices": [end]}), reader.flush()]
    arguments = {}
    for delta in filter(None, deltas):
        answer.add(delta)
        for piece in delta.tool_calls:
            before = "" if piece.replaces else arguments.get(piece.place, "")
            arguments[piece.place] = before + piece.arguments
    response = answer.response()
    assert [arguments[place] for place in sorted(arguments)] == [
        call.arguments for call in response.tool_calls
    ]
    return response


def calls_of(*chunks, **ending):
    return [(call.name, call.arguments) for call in answer_to(*chunks, **ending).tool_calls]


A1, A2 = '{"a":1}', '{"a":2}'


# --- W01: placeholders ---


@pytest.mark.parametrize(
    "pieces",
    [
        [c(0, "c1", "wipe", "{}"), c(0, None, None, '{"p":"a"}')],
        [c(0, "c1", "wipe", "{}"), c(0, None, None, '{"p"'), c(0, None, None, ':"a"}')],
        [c(0, "c1", "wipe", {}), c(0, "c1", None, '{"p":'), c(0, "c1", "", '"a"}')],
        [c(0, "c1", "wipe", "{ }"), c(0, "c1", "wipe", '{"p":"a"}')],
        [c(0, "c1", "wipe", ""), c(0, None, None, "{}"), c(0, None, None, '{"p":"a"}')],
        [c(0, "c1", "wipe", "null"), c(0, None, None, '{"p":"a"}')],
        [c(None, "c1", "wipe", "{}"), c(None, None, None, '{"p":"a"}')],
        [c(0, None, "wipe", "{}"), c(0, None, "wipe", '{"p":"a"}')],
        [c(0, "c1", "wipe", "[]"), c(0, None, None, '{"p"'), c(0, None, None, ':"a"}')],
        [c(0, "c1", "wipe", '""'), c(0, None, None, '{"p"'), c(0, None, None, ':"a"}')],
        [c(0, "c1", "wipe", "{"), c(0, None, None, "}"), c(0, None, None, '{"p":"a"}')],
        [c(0, "c1", "wipe", '{}{"p":"a"}')],
        [c(0, "c1", "wipe", '{}{"p"'), c(0, None, None, ':"a"}')],
        [c(0, "c1", "wipe", '{"p":"a"}'), c(0, None, None, "{}")],
        [c(0, "c1", "wipe", '{"p":'), c(0, None, None, '"a"}'), c(0, "c1", "wipe", "{}")],
        [c(0, "c1", "wipe", '{"p":"a"}'), c(0, None, None, "null")],
    ],
)
def test_w01_a_placeholder_is_replaced(pieces):
    (call,) = calls_of(*pieces)
    assert (call[0], json.loads(call[1])) == ("wipe", {"p": "a"})


def test_w01_an_empty_object_that_nothing_follows_stays():
    assert calls_of(c(0, "c1", "wipe", "{}"), c(1, "c2", "f", A1)) == [("wipe", "{}"), ("f", A1)]


# --- W02: pieces without a name ---


@pytest.mark.parametrize(
    "pieces",
    [
        [c(0, "1", "f", '{"a"'), c(0, "2", None, ":"), c(0, "3", None, "1}")],
        [c(0, "1", "f", '{"a"'), c(0, "2", "", ":"), c(0, "null", None, "1}")],
        [c(None, "1", "f", '{"a"'), c(None, "2", None, ":"), c(None, "3", None, "1}")],
        [c(0, "null", "f", '{"a"'), c(0, "null", None, ":1}")],
        [c(0, "1", "f", '{"a"'), c(1, "2", None, ":"), c(2, "3", None, "1}")],
        [c(0, "1", "f", '{"a"'), c(0, "2", "f", ":"), c(0, "3", "f", "1}")],
        [c(None, "1", "f", '{"a"'), c(None, "2", "f", ":"), c(None, "3", "f", "1}")],
        [c(0, "1", "f", '{"a"'), c(0, "2", " ", ":1}")],
    ],
)
def test_w02_a_piece_without_a_name_goes_on_with_a_call(pieces):
    assert calls_of(*pieces) == [("f", A1)]


@pytest.mark.parametrize("index", [0, None])
def test_w02_an_id_and_the_name_with_each_character(index):
    text = '{"a":{"b":[{"c":"{"}]}}'
    pieces = [c(index, str(place), "f", character) for place, character in enumerate(text)]
    assert calls_of(*pieces) == [("f", text)]


@pytest.mark.parametrize("no_id", ["null", "None", "", " ", "undefined"])
def test_w02_the_text_null_is_no_id(no_id):
    assert answer_to(c(0, no_id, "f", A1)).tool_calls[0].id == ""


def test_w02_a_new_index_and_no_name_goes_to_the_call_of_its_id():
    first = [c(0, "c1", "f", '{"a"'), c(1, "c2", "g", '{"a"')]
    assert calls_of(*first, c(2, "c1", None, ":1}"), c(3, "c2", None, ":2}")) == TWO


def test_w02_new_ids_and_names_are_calls_all_the_same():
    pieces = [c(0, "1", "f", '{"a"'), c(0, "2", None, ":1}"), c(0, "3", "f", A2)]
    assert calls_of(*pieces) == [("f", A1), ("f", A2)]


def test_w02_arguments_before_their_name():
    pieces = [c(0, "c0", "f", A1), c(1, "c1", None, '{"a":'), c(1, None, "g", "2}")]
    assert calls_of(*pieces) == [("f", A1), ("g", A2)]


# --- W03: arguments twice, growing snapshots ---

TWICE = ['{"a"', ":1}", '{"a"', ":1}"]
SNAPSHOTS = ['{"a', '{"a":1', '{"a":1}']


@pytest.mark.parametrize(
    "arguments",
    [
        ['{"a":', "1}", A1],
        [A1, A1],
        ["{", '"a"', ":1", "}", A1],
        SNAPSHOTS,
        [*SNAPSHOTS, A1],
        ['{"a": 1}', A1],
        TWICE,
        [A1 + A1],
        [A1 + "\n", '{"a": 1}\n'],
    ],
)
@pytest.mark.parametrize("id", [None, "c1"])
@pytest.mark.parametrize("name", [None, "f"])
def test_w03_what_came_twice_counts_once(arguments, id, name):
    if name and not id and arguments in (['{"a": 1}', A1], [A1 + "\n", '{"a": 1}\n'], TWICE):
        return  # two named texts without ids: two calls
    pieces = [c(0, "c1", "f", arguments[0]), *[c(0, id, name, piece) for piece in arguments[1:]]]
    assert [json.loads(arguments) for _, arguments in calls_of(*pieces)] == [{"a": 1}]


@pytest.mark.parametrize(
    "arguments",
    [['{"a":', '{"a":1}}'], ['{"a":[', "1", "]}"], ['{"a":', "1"], ["{", "{", "}"], ['"x', 'y"']],
)
def test_w03_honest_pieces_stay(arguments):
    pieces = [c(0, "c1", "f", arguments[0]), *[c(0, None, None, p) for p in arguments[1:]]]
    if arguments != ["{", "{", "}"]:
        assert calls_of(*pieces) == [("f", "".join(arguments))]
    else:
        assert len(calls_of(*pieces)) == 1


def test_w03_an_inner_object_of_a_cut_answer_is_not_the_whole():
    response = answer_to(c(0, "c1", "f", '{"a":'), c(0, None, None, '{"b":1}'), finish="length")
    assert response.tool_calls[0].cut


# --- W04: names in pieces ---


@pytest.mark.parametrize(
    "names",
    [
        ["get_", "weather"],
        ["get_", "get_weather"],
        ["get_weather", "get_weather"],
        ["g", "et_", "weather", "get_weather"],
        ["get_", "get_w", "get_weather"],
        ["get_weather", "", None],
    ],
)
@pytest.mark.parametrize("id", [None, "c1"])
def test_w04_a_name_in_pieces(names, id):
    pieces = [c(0, id if n else "c1", name, None) for n, name in enumerate(names)]
    assert calls_of(*pieces, c(0, None, None, A1)) == [("get_weather", A1)]


def test_w04_the_name_with_the_first_arguments_and_after_them():
    pieces = [
        c(0, "c1", "get_", ""),
        c(0, None, "weather", '{"a"'),
        c(0, None, "get_weather", ":1}"),
    ]
    assert calls_of(*pieces) == [("get_weather", A1)]


def test_w04_a_name_in_pieces_without_index_and_id():
    pieces = [c(None, None, "get_", None), c(None, None, "weather", None), c(None, None, None, A1)]
    assert calls_of(*pieces) == [("get_weather", A1)]


# --- W05: as many calls as were meant ---

TWO = [("f", A1), ("g", A2)]


@pytest.mark.parametrize(
    "pieces",
    [
        [c(0, "c1", "f", A1), c(0, "c2", "g", A2)],
        [c(0, None, "f", A1), c(0, None, "g", A2)],
        [c(0, "c1", "f", None), c(0, None, None, A1), c(0, "c2", "g", None), c(0, None, None, A2)],
        [
            c(0, "c1", "f", '{"a"'),
            c(1, "c2", "g", '{"a"'),
            c(0, None, None, ":1}"),
            c(1, None, None, ":2}"),
        ],
        [c(-1, "c1", "f", A1), c(-1, "c2", "g", A2)],
        [c("0", "c1", "f", '{"a"'), c("1", "c2", "g", A2), c("0", None, None, ":1}")],
        [[c(0, None, "f", A1), c(0, None, "g", A2)]],
        [c(None, None, "f", A1), c(None, None, "g", A2)],
        [c(None, "c1", "f", A1), c(None, "c2", "g", '{"a"'), c(None, "c2", "g", ":2}")],
        [c(0, "0", "f", A1), c(0, "0", "g", A2)],
        [c(0.0, "c1", "f", '{"a"'), c(1.0, "c2", "g", A2), c(0.0, None, None, ":1}")],
        [
            c(0, "c1", "f", ""),
            c(0, "c2", "g", ""),
            c(0, "c1", None, A1),
            c(0, "c2", None, A2),
        ],
        [
            c(0, "c1", "f", '{"a"'),
            c(0, "c2", "g", '{"a"'),
            c(0, "c1", "f", ":1}"),
            c(0, "c2", "g", ":2}"),
        ],
    ],
)
def test_w05_two_calls(pieces):
    assert calls_of(*pieces) == TWO


def test_w05_two_calls_of_one_tool_without_ids():
    assert calls_of(c(0, None, "f", A1), c(0, None, "f", A2)) == [("f", A1), ("f", A2)]
    assert calls_of([c(0, None, "f", A1), c(0, None, "f", A1)]) == [("f", A1), ("f", A1)]


def test_w05_two_calls_have_two_ids(server):
    calls = [c(0, "same", "f", A1), c(1, "same", "g", A2)]
    server.reply(chat_chunk({"tool_calls": calls}), chat_chunk({}, finish_reason="stop"), DONE)
    with client_of(server) as client:
        first, second = client.chat("hi").tool_calls
    assert first.id == "same"
    assert second.id not in ("", "same")


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("id", [None, "", "same"])
def test_w05_an_unstreamed_answers_calls_are_as_many_as_it_lists(index, id):
    calls = [c(index, id, "f", "{}"), c(index, id, "f", A1)]
    body = {"choices": [{"index": 0, "message": {"content": None, "tool_calls": calls}}]}
    answer = Accumulator()
    answer.add(ChunkReader().read_whole(body))
    told = answer.response().tool_calls
    assert [(call.name, call.arguments) for call in told] == [("f", "{}"), ("f", A1)]


# --- W06: cut calls ---

CUTS = [
    "length",
    "max_tokens",
    "MAX_TOKENS",
    "max_output_tokens",
    "model_length",
    "content_filter",
    "SAFETY",
    "maxTokens",
    "model_context_window_exceeded",
]


@pytest.mark.parametrize("finish", CUTS)
@pytest.mark.parametrize("arguments", [[], [""], ["{"], ['{"a":', '"half'], ['{"a":{"b":1}']])
def test_w06_a_call_in_which_the_answer_was_cut_is_marked(finish, arguments):
    pieces = [c(0, "c1", "f", A1), c(1, "c2", "g", None), *[c(1, None, None, a) for a in arguments]]
    assert [call.cut for call in answer_to(*pieces, finish=finish).tool_calls] == [False, True]


@pytest.mark.parametrize("finish", ["tool_calls", "stop", None])
@pytest.mark.parametrize("native", ["length", "max_output_tokens", "MAX_TOKENS"])
def test_w06_only_the_native_word_tells(finish, native):
    response = answer_to(c(0, "c1", "f", '{"a"'), finish=finish, native=native)
    assert response.tool_calls[0].cut


@pytest.mark.parametrize("arguments", ["{}", A1, '{"a":"one\nline"}', ' {"a":1} '])
def test_w06_a_whole_call_is_not_cut(arguments):
    response = answer_to(c(0, "c1", "f", arguments), finish="length")
    assert not response.tool_calls[0].cut


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "STOP", "end_turn"])
def test_w06_no_cut_no_mark(finish):
    response = answer_to(c(0, "c1", "f", ""), finish=finish, native="completed")
    assert not response.tool_calls[0].cut


@pytest.mark.parametrize("arguments", [None, "", '{"path": "/'])
def test_w06_a_call_cut_at_the_limit_is_not_made(server, arguments):
    made = []

    @tool
    def wipe(path: str = "/") -> str:
        """Wipe a path."""
        made.append(path)
        return "wiped"

    whole = c(0, "c1", "wipe", '{"path": "/tmp/a"}')
    server.reply(
        chat_chunk({"tool_calls": [whole]}),
        chat_chunk({"tool_calls": [c(1, "c2", "wipe", arguments)]}),
        chat_chunk({}, finish_reason="length"),
        DONE,
    )
    server.reply_text("Sorry.")
    with client_of(server) as client:
        Agent("a", client=client, tools=[wipe]).execute("hi")
    assert made == ["/tmp/a"]
    told = [m["content"] for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert told[0] == "wiped"
    assert "cut" in told[1]


# --- B11, B17 ---


@pytest.mark.parametrize("name", [None, "f"])
@pytest.mark.parametrize("first", ["[", '{"rows":['])
def test_b11_many_pieces_that_begin_with_a_brace_are_linear(name, first):
    piece = '{"x":1},'
    pieces = [c(0, "c1", "f", first)] + [c(0, "c1", name, piece)] * 22_500
    began = time.process_time()
    answer_to(*pieces)
    assert time.process_time() - began < 2.0  # 18 s and more when each looked at all


LONE = "\ud83d"


def test_b17_lone_surrogates_in_ids_and_names():
    (call,) = answer_to(c(0, "id" + LONE, "na" + LONE + "me", A1)).tool_calls
    assert (call.id, call.name) == ("id\ufffd", "na\ufffdme")


def test_b17_a_lone_surrogate_at_the_end_of_the_arguments():
    (call,) = answer_to(c(0, "c", "f", '{"a":"' + LONE)).tool_calls
    assert call.arguments == '{"a":"\ufffd'


# --- what there was before tool_calls ---


@pytest.mark.parametrize("reason", ["function_call", "stop", "length"])
def test_a_legacy_function_call_is_a_call(reason):
    pieces = [{"name": "look", "arguments": ""}, {"arguments": '{"at": '}, {"arguments": '"a"}'}]
    reader, answer = ChunkReader(), Accumulator()
    for piece in (*pieces, None):
        choice = {"index": 0, "delta": {"content": None, "function_call": piece}}
        if piece is None:
            choice["finish_reason"] = reason
        delta = reader.read({"choices": [choice]})
        if delta is not None:
            answer.add(delta)
    answer.end()
    (call,) = answer.response().tool_calls
    assert (call.name, call.arguments, bool(call.id)) == ("look", '{"at": "a"}', True)
    assert reader.flush() is None  # it is whole


def test_a_legacy_function_call_of_a_whole_answer():
    message = {"content": None, "function_call": {"name": "look", "arguments": A1}}
    delta = ChunkReader().read_whole({"choices": [{"index": 0, "message": message}]})
    assert [(piece.name, piece.arguments) for piece in delta.tool_calls] == [("look", A1)]
