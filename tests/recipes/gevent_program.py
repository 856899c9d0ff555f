"""Run by test_gevent.py in a process of its own: everything under gevent.monkey.patch_all()."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

from agentstream import (  # noqa: E402
    Agent,
    Cancelled,
    CancelToken,
    LlamaClient,
    Retries,
    Runtime,
    StallTimeout,
    Timeouts,
    Workflow,
)


def streams(url):
    """Twenty at once, whole and not mixed up."""
    client = LlamaClient(url, retries=Retries(0))
    texts = {}
    threads = [
        threading.Thread(target=lambda n=n: texts.update({n: "".join(client.chat_stream("hi"))}))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    client.close()
    assert set(texts) == set(range(20)), texts
    assert set(texts.values()) == {"Hello world"}, texts


def cancel(url):
    """A cancel from another greenlet ends a blocked read at once."""
    client = LlamaClient(url, retries=Retries(0))
    token = CancelToken()
    stream = client.chat_stream("hi", cancel=token)
    assert next(stream) == "begun"
    began = []

    def stop():
        began.append(time.monotonic())
        token.cancel("enough")

    timer = threading.Timer(0.1, stop)
    timer.start()
    try:
        for _ in stream:
            pass
    except Cancelled as error:
        assert error.partial.content == "begun"
    else:
        raise AssertionError("the stream was not cancelled")
    assert time.monotonic() - began[0] < 5.0
    timer.join(5)
    client.close()


def stall(url):
    """A server that falls silent is a StallTimeout."""
    client = LlamaClient(url, retries=Retries(0), timeouts=Timeouts(stall=0.3))
    try:
        "".join(client.chat_stream("hi"))
    except StallTimeout as error:
        assert error.partial.content == "begun"
    else:
        raise AssertionError("no StallTimeout")
    client.close()


def runtime(url):
    """A run, its events, and one that is stopped."""
    client = LlamaClient(url, retries=Retries(0))
    flow = Workflow("flow", [Agent("one", client=client)])
    with Runtime() as runtime:
        run = runtime.run(flow, "hi")
        assert run.output == "Hello world", run
        chunks = [event.data.get("chunk", "") for event in runtime.stream(flow, "hi")]
        assert "".join(chunks) == "Hello world"
    client.close()


def stopped(url):
    """`stop_generation` ends a run that waits for the model."""
    client = LlamaClient(url, retries=Retries(0))
    flow = Workflow("flow", [Agent("one", client=client)])
    with Runtime() as runtime:
        handle = runtime.submit(flow, "hi")
        for event in runtime.event_stream.subscribe(workflow_id=handle.workflow_id, after=0):
            if event.data.get("chunk"):
                assert runtime.stop_generation(handle.workflow_id)
        try:
            handle.result(5)
        except Cancelled:
            pass
        else:
            raise AssertionError("the run was not stopped")
    client.close()


globals()[sys.argv[1]](sys.argv[2])
print("ok")
