"""Writers of one conversation, and SIGKILL: `python -m stress.conversations [N]` (200).

Each round starts three writers on one file and kills one of them with SIGKILL at a random
moment.  Whatever a writer was told is kept is there, turns are whole, and no writer waits
for one that is gone.  The suite has one kill.
"""

from __future__ import annotations

import pathlib
import random
import signal
import sys
import tempfile
import threading
from typing import Dict, List

from agentstream import Conversations
from tests.kit.programs import Program

WRITER = """
chats = Conversations(arguments[0])
for number in range(int(arguments[2])):
    chats.get("ada").add(
        ChatMessage.user(f"{arguments[1]}-{number}"), ChatMessage.assistant("a " * 2000)
    )
    say(number)
"""


def turns(path: pathlib.Path) -> Dict[str, List[int]]:
    """The numbers that each writer has added, in order; raises AssertionError for half a turn."""
    found: Dict[str, List[int]] = {}
    messages = Conversations(path).get("ada").messages
    assert [m.role for m in messages] == ["user", "assistant"] * (len(messages) // 2)
    for message in messages[::2]:
        name, _, number = str(message.content).partition("-")
        found.setdefault(name, []).append(int(number))
    return found


def play(path: pathlib.Path, number: int, chance: random.Random) -> int:
    """One round; returns how many turns the writer that was killed had added."""
    names = [f"{number}{letter}" for letter in "abc"]
    writers = [Program(WRITER, str(path), name, "8") for name in names]
    victim = writers[0]
    victim.expect("0")
    threading.Event().wait(chance.random() * 0.05)
    victim.process.send_signal(signal.SIGKILL)
    for writer in writers:
        ends = (0, -signal.SIGKILL) if writer is victim else (0,)  # it may have been done
        assert writer.finish() in ends, writer.errors
    found = turns(path)
    for name, writer in zip(names, writers):
        told = [int(line) for line in writer.lines]
        kept = found[name]
        assert kept == list(range(len(kept))), (name, kept)
        assert len(told) <= len(kept) <= len(told) + 1, (name, told, kept)
    return len(found[names[0]])


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    chance = random.Random(count)
    reached: List[int] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            path = pathlib.Path(folder) / f"chats{number // 20}.db"
            reached.append(play(path, number, chance))
    print(f"{count} kills, after {min(reached)} to {max(reached)} turns: nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
