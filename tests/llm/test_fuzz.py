"""Recorded streams, bent at random: out of a client come answers and AgentStreamErrors only.

Bounded for the suite; stress/fuzz.py goes on for as long as it is told.
"""

from __future__ import annotations

import random
import time
import zlib

import pytest

from tests.kit import fuzz

#: Bent streams of each protocol; one takes this many seconds at the most.
COUNT, MOST_S = 800, 2.0


@pytest.mark.parametrize("protocol", fuzz.PROTOCOLS)
def test_whatever_a_server_writes_only_our_errors_come_of_it(protocol):
    streams = fuzz.recordings(protocol)
    client = fuzz.client_of(protocol)
    ends = set()
    for number in range(COUNT):
        chance = random.Random(zlib.crc32(f"{protocol} {number}".encode()))
        body = fuzz.bend(chance.choice(streams), chance)
        began = time.monotonic()
        try:
            ends.add(fuzz.play(client, protocol, body, chance))
        except Exception as error:
            raise AssertionError(f"{protocol} {number}: {error!r}") from error
        assert time.monotonic() - began < MOST_S
    client.close()
    assert {"whole", "ProtocolError"} < ends  # it reaches what it is to reach
