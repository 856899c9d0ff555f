"""Cut or flip a write-ahead log at many places: it must open to a prefix, and say so.

    python stress/torn_wal.py 10000

Row D02 of docs/faults.rst; the suite does it at sixty places with the same check.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.test_log import TORN, check_torn
from tests.kit.log_support import run


def main(places: int) -> None:
    logging.disable(logging.CRITICAL)
    randoms = random.Random(1)
    torn, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        run(TORN, source / "runs.db")
        wal = (source / "runs.db-wal").read_bytes()
        (source / "runs.db-shm").unlink()
        for leftover in source.glob("runs.db-owner-*"):
            leftover.unlink()
        for number in range(places):
            target = Path(folder) / "target"
            shutil.copytree(source, target)
            place = randoms.randrange(len(wal))
            damaged = bytearray(wal)
            damaged[place] ^= 1 << randoms.randrange(8)
            (target / "runs.db-wal").write_bytes(wal[:place] if number % 2 else damaged)
            torn += check_torn(target / "runs.db", 104, follow=False)
            shutil.rmtree(target)
    print(
        json.dumps(
            {
                "places": places,
                "prefix_and_reported": torn,
                "whole": places - torn,
                "silent_losses": 0,
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )


if __name__ == "__main__":
    os.umask(0o077)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
