"""Stop an answer from another thread, and bound how long it may take."""

import threading

from agentstream import Cancelled, CancelToken, LlamaClient, Timeouts

enough = CancelToken()
clock = threading.Timer(0.5, enough.cancel, ["half a second is over"])
clock.start()
with LlamaClient("http://127.0.0.1:8080", timeouts=Timeouts(first_token=60, total=120)) as client:
    try:
        for text in client.chat_stream("Count to a thousand.", cancel=enough):
            print(text, end="", flush=True)
    except Cancelled as stopped:
        print(f"\nstopped after {len(stopped.partial.content)} characters: {stopped}")
clock.cancel()
