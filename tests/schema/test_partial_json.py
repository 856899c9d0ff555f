"""The text of a JSON string that is still arriving."""

from __future__ import annotations

import json
import random

import pytest

from agentstream.schema.partial_json import StringDecoder, StringField


def read(pieces, key="answer"):
    field = StringField(key)
    return "".join(field.feed(piece) for piece in pieces) + field.flush(), field


ALPHABET = list('aé\n"\\/\t€{}[]:,') + ["😀", "\u2028", "\x00", "𝄞", '"answer":', "\\u0041"]


def test_any_answer_cut_anywhere_comes_out_as_it_is():
    randomly = random.Random(5)
    for _ in range(1500):
        text = "".join(randomly.choice(ALPHABET) for _ in range(randomly.randrange(12)))
        before = (
            {}
            if randomly.random() < 0.5
            else {
                "x" + text: randomly.choice(
                    [1, None, text, [text, {"answer": "no"}], {"answer": "no"}]
                )
            }
        )
        document = json.dumps(
            {**before, "answer": text, "z": "after"},
            ensure_ascii=randomly.random() < 0.5,
            indent=randomly.choice([None, 2]),
        )
        middle = randomly.randrange(len(document))
        for pieces in ([document], list(document), [document[:middle], document[middle:]]):
            found, field = read(pieces)
            assert found == text
            assert field.done


def test_text_is_known_as_soon_as_it_can_be():
    field = StringField("answer")
    given = [field.feed(c) for c in r'{"answer": "a\ud83d\ude00\n\u00e9b"']
    assert [g for g in given if g] == ["a", "😀", "\n", "é", "b"]
    assert field.found
    assert field.done


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (r'{"answer": "\ud83d"}', "\ufffd"),
        (r'{"answer": "\ud83dx\ude00"}', "\ufffdx\ufffd"),
        (r'{"answer": "\ud83d\ud83d\ude00"}', "\ufffd😀"),
        (r'{"answer": "a\u12"}', "a\ufffd"),
        (r'{"answer": "a\u12x"}', "a\ufffdx"),
        (r'{"answer": "a\q\/"}', "aq/"),
        (r'{"answer": "cut', "cut"),
        (r'{"answer": "cut\ud83d', "cut\ufffd"),
        (r'{"answer": "cut\u00', "cut"),
        (r'{"an\u0073wer": "key with an escape"}', "key with an escape"),
        ('{"answer": 3, "b": "no"}', ""),
        ('{"answer": {"answer": "no"}}', ""),
        ('["answer", "no"]', ""),
        ("no json", ""),
        ('"answer"', ""),
        ("", ""),
    ],
)
def test_odd_documents(document, text):
    for pieces in ([document], list(document)):
        found, _ = read(pieces)
        assert found == text


def test_what_is_no_object_is_said_to_be_plain():
    assert read(["hello"])[1].plain
    assert read(["  ", "[1]"])[1].plain
    assert not read([" {", '"a": 1}'])[1].plain


def test_the_decoder_stops_at_the_quote():
    decoder = StringDecoder()
    assert decoder.feed('abc" , "next"', 1) == ("bc", 4)
    assert decoder.done
