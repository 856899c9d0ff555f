"""Lines break at words on a terminal, whatever pieces the text comes in, wide characters too."""

from __future__ import annotations

import io
import random
import re
import textwrap
from typing import List

import pytest

from agentstream.console import Console
from agentstream.console.terminal import cells
from agentstream.console.wrap import Wrapper, wrapper_for
from tests.kit.screens import Feed, Screen, Terminal, pty_only

POEM = (
    "Whose woods these are I think I know, and here the line goes on for much longer than any "
    "terminal is wide. His house is in the village though.\n\nA second paragraph, of short words "
    "only, as it is: a b c d e f g h i j k l m n o p q r s t u v w x y z.\n"
)
WIDE = "我們在這裡寫一段很長的文字，讓它在終端機上換行（括號也要好好處理）。這樣就可以了！🤖🤖 done"


def seen(text: str, columns: int, *, indent: str = "", seed: int = 0) -> List[str]:
    """What is seen of a text that comes in pieces of random sizes."""
    rng = random.Random(seed)
    wrapper, screen = Wrapper(lambda: columns, indent), Screen(columns)
    while text:
        size = rng.randint(1, 9)
        screen.feed(wrapper.feed(text[:size]).replace("\n", "\r\n"))
        text = text[size:]
    return screen.lines


def words(lines: List[str]) -> List[str]:
    return " ".join(lines).split()


def test_words_stay_whole_however_they_come() -> None:
    for columns in (20, 21, 33, 60, 79):
        for seed in range(20):
            lines = seen(POEM, columns, seed=seed)
            assert words(lines) == POEM.split()
            assert max(map(len, lines)) <= columns
            filled = [part for line in POEM.split("\n") for part in textwrap.wrap(line, columns)]
            assert [line for line in lines if line] == filled


def test_what_goes_on_is_indented() -> None:
    lines = seen("   " + POEM, 30, indent="   ")
    assert words(lines) == POEM.split()
    assert all(line.startswith("   ") for line in lines[:5])
    assert "\n".join(lines).strip().startswith("Whose woods")


def test_wide_characters_break_anywhere_but_before_what_closes() -> None:
    for columns in range(20, 34):
        lines = [line for line in seen(WIDE, columns, seed=columns) if line]
        assert "".join(lines).replace(" ", "") == WIDE.replace(" ", "")
        assert all(cells(line) <= columns for line in lines)
        assert not any(line[0] in "，。！）" for line in lines)
        assert not any(line[-1] in "（" for line in lines)
        assert all(cells(line) >= columns - 6 for line in lines[:-2])  # and they are filled


def test_what_is_put_together_of_several_characters_stays_together() -> None:
    for joined in ("👩\u200d💻", "字\u0301", "🤖\ufe0f"):
        for space in range(20):
            broken = Wrapper(lambda: 20).feed("字" * space + joined * 12).split("\n")
            lines = [line.rpartition("\r")[2].replace("\x1b[K", "") for line in broken]
            assert len(lines) > 1
            assert sum(line.count(joined) for line in lines) == 12, "no line breaks within"


def test_what_is_longer_than_a_line_is_left_to_the_terminal() -> None:
    url = "https://example.org/" + "x" * 70
    written = "".join(Wrapper(lambda: 40).feed(piece) for piece in [f"See {url} there"])
    assert url in written, "it can be copied whole"
    lines = seen(f"See {url} and then some words that follow it", 40)
    assert "".join(lines).replace(" ", "").startswith("See" + url)
    assert words(lines[3:])[-3:] == ["that", "follow", "it"]


def test_code_between_fences_tabs_and_full_lines() -> None:
    code = (
        "```python\n" + "value = some_function(with_arguments, and_more=1)  # of it\n" * 2 + "```\n"
    )
    wrapper = Wrapper(lambda: 30)
    assert wrapper.feed(code) == code
    after = wrapper.feed("And words again, which are to be wrapped as before.")
    assert "\n" in after
    assert seen("a" * 20 + " \n" + "b", 20)[:2] == ["a" * 20, "b"]
    assert seen("a" * 20 + "   " + "b", 20)[:2] == ["a" * 20, "b"]
    assert seen("a" * 20 + "\n" + "b", 20)[:2] == ["a" * 20, "b"]
    assert "\t" in Wrapper(lambda: 20).feed("a\tb")
    tabs = Wrapper(lambda: 20).feed("aaaaaaaaaaaaaa\tb\tword")
    assert tabs.endswith("word")


def test_a_narrow_terminal_and_one_that_obeys_nothing_get_it_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Wrapper(lambda: 19).feed(POEM) == POEM
    assert wrapper_for(io.StringIO()).feed(POEM) == POEM


@pty_only
def test_the_console_wraps_under_its_headings(terminal: Terminal) -> None:
    feed = Feed(Console(terminal.files[0]))
    feed.start()
    feed.step("0", "poet")
    feed.begin("0", "poet")
    for piece in re.findall(r"\S+|\s+", POEM):
        feed.say("0", "poet", piece)
    lines = [line for line in terminal.screen().lines if line]
    assert lines[0] == "🤖 poet >"
    assert words(lines[1:]) == POEM.split()
    assert all(line.startswith("   ") and cells(line) <= terminal.columns for line in lines[1:])
    assert Console(io.StringIO())._wrapper is None
    assert Console(terminal.files[0], wrap=False)._wrapper is None
