"""Programs for B13: a main thread at work in the library, and real signals that interrupt it anywhere.

Each is a script for `tests.kit.programs.Program`; stress/run_signals.py runs the same ones for longer.
Their work takes turns with everything a main thread does with a runtime, so that over a thousand
signals the handler interrupts all of it.
"""

from __future__ import annotations

__all__ = ["EXITS", "SHUTDOWNS", "STOPS"]

_COMMON = """
import concurrent.futures, faulthandler, random, tempfile
from agentstream.agent.agent import Agent
from agentstream.events.sqlite import SqliteStore

kind, how, count, seconds = arguments[0], arguments[1], int(arguments[2]), float(arguments[3])
folder = tempfile.mkdtemp(prefix="agentstream-signals-")
ends = {"workflow_completed", "workflow_cancelled", "workflow_failed"}

class Talker(ChatClient):
    model = "talker"
    def stream_deltas(self, request, *, cancel=None):
        for number in range(5):
            if cancel.cancelled:
                raise Cancelled("stopped")
            yield Delta("word ")

agent = Agent("talker", client=Talker())
shapes = Workflow("shapes", [lambda x: x, Parallel(one=lambda x: x, two=lambda x: x)])

def new_runtime(name, **settings):
    store = SqliteStore(f"{folder}/{name}.db") if kind == "sqlite" else MemoryStore(10**6)
    return Runtime(max_workers=4, event_stream=EventStream(store), **settings)

def work(runtime, handles, append):
    "One of the things that a main thread does with a runtime."
    what = len(handles) % 5
    handles.append(runtime.submit(shapes if what == 3 else agent, "hi"))
    try:
        if what == 1:
            handles[-1].result()
        elif what == 2:
            for event in runtime.stream(agent, "hi"):
                pass
        elif what == 3:
            for handle in concurrent.futures.as_completed(handles[-3:]):
                handle.done()
        elif what == 4:
            concurrent.futures.wait(handles[-5:])
            append()
    except (Cancelled, WorkflowFailed):
        pass

def strike(delay, number):
    "A real signal to the main thread, some milliseconds from now."
    main = threading.main_thread().ident
    thread = threading.Timer(delay, lambda: signal.pthread_kill(main, number))
    thread.daemon = True
    thread.start()
    return thread
"""

#: Signals whose handler cancels and stops runs, in one runtime, one after the other.
STOPS = (
    _COMMON
    + """
faulthandler.dump_traceback_later(seconds, exit=True)
runtime = new_runtime("log")
handles, acknowledged, slow, seen = [], [], [], 0

def handler(*_):
    global seen
    began = time.monotonic()
    handle = handles[-1] if handles else None
    if handle is not None and seen % 2:
        handle.cancel()
        handle.done(), handle.running(), handle.cancelled(), repr(handle)
    elif handle is not None:
        runtime.stop_generation(handle.workflow_id)
    runtime.stop_generation("nobody")
    if time.monotonic() - began > 1:
        slow.append(time.monotonic() - began)
    seen += 1

def append():
    event = runtime.event_stream.append("system_warning", "mine", {"message": "x"})
    acknowledged.append(event.offset)

signal.signal(signal.SIGUSR1, handler)
chance = random.Random(1)
while seen < count:
    before = seen
    timer = strike(chance.random() * 0.004, signal.SIGUSR1)
    while seen == before:
        work(runtime, handles, append)
    timer.join()
events = {}
for event in runtime.event_stream.store.read(after=0, limit=10**6):
    events.setdefault(event.workflow_id, []).append(event)
assert runtime.shutdown(timeout=20)
assert all(handle.done() for handle in handles)
for event in runtime.event_stream.store.read(after=0, limit=10**6):
    events.setdefault(event.workflow_id, []).append(event)
assert acknowledged == list(range(1, len(acknowledged) + 1)), "appends were lost"
for handle in handles:
    of_run = {event.offset: event for event in events[handle.workflow_id]}
    assert sorted(of_run) == list(range(1, len(of_run) + 1)), handle
    kinds = [of_run[offset].type.value for offset in sorted(of_run)]
    assert kinds[-1] in ends and not ends & set(kinds[:-1]), kinds
print(sum(handle.cancelled() for handle in handles), "of", len(handles), "stopped; slow:", slow)
assert not slow
"""
)

#: Signals whose handler shuts a runtime down; each gets one of its own.
SHUTDOWNS = (
    _COMMON
    + """
faulthandler.dump_traceback_later(seconds, exit=True)
slow, refused = [], 0

def handler(*_):
    began = time.monotonic()
    runtime.shutdown(cancel=how == "cancel")
    if time.monotonic() - began > 2:
        slow.append(time.monotonic() - began)

signal.signal(signal.SIGUSR1, handler)
chance = random.Random(2)
for number in range(count):
    heard, handles, acknowledged = {}, [], 0
    runtime = new_runtime(number)
    runtime.event_stream.subscribe(
        lambda event: heard.setdefault(event.workflow_id, []).append(event.type.value)
    )
    def append():
        global acknowledged
        runtime.event_stream.append("system_warning", "mine", {"message": "x"})
        acknowledged += 1
    timer = strike(chance.random() * 0.01, signal.SIGUSR1)
    try:
        while True:
            work(runtime, handles, append)
    except (RuntimeError, LogError):
        refused += 1  # it has been shut down
    timer.join()
    assert runtime.shutdown(timeout=20), "runs have not ended"
    assert len(heard.get("mine", [])) >= acknowledged, "appends were lost"
    for handle in handles:
        assert handle.done(), handle
        kinds = heard[handle.workflow_id]
        assert kinds[-1] in ends and not ends & set(kinds[:-1]), kinds
print(refused, "shut down; slow:", slow)
assert not slow
"""
)

#: Signals that end a process, each a fork of this one: it leaves with its code, its log is whole.
EXITS = (
    _COMMON
    + """
CODES = {"sigterm": 143, "shutdown": 143, "interrupt": 130}

def child(number, delay):
    faulthandler.dump_traceback_later(20, exit=True)
    sys.stderr = open(os.devnull, "w") if how == "interrupt" else sys.stderr
    runtime = new_runtime(number)
    files = [os.open(f"{folder}/{number}.{part}", os.O_CREAT | os.O_WRONLY) for part in ("e", "a")]
    def write(event):
        os.write(files[0], f"{event.workflow_id} {event.offset} {event.type.value}\\n".encode())
    def append():
        event = runtime.event_stream.append("system_warning", "mine", {"message": "x"})
        os.write(files[1], b"%d\\n" % event.offset)
    def stop(*_):
        runtime.shutdown(cancel=True)
        sys.exit(143)
    runtime.event_stream.subscribe(write)
    if how == "sigterm":
        exit_on_sigterm()
    else:
        signal.signal(signal.SIGTERM, stop if how == "shutdown" else signal.default_int_handler)
    strike(delay, signal.SIGTERM)
    handles = []
    if number % 2:
        with runtime:
            while True:
                work(runtime, handles, append)
    while True:
        work(runtime, handles, append)

def check(number, status):
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    assert code == CODES[how], (number, code)
    last = {}
    with open(f"{folder}/{number}.e") as file:
        for line in file:
            run, offset, kind = line.split()
            assert int(offset) == last.get(run, (0, ""))[0] + 1, (number, run, offset)
            last[run] = int(offset), kind
    with open(f"{folder}/{number}.a") as file:
        assert len(file.readlines()) <= last.pop("mine", (0, ""))[0], (number, "appends were lost")
    assert {kind for _, kind in last.values()} <= ends, (number, last)

chance = random.Random(3)
for number in range(count):
    delay = 0.003 + chance.random() * 0.02
    pid = os.fork()
    if not pid:
        break
    check(number, os.waitpid(pid, 0)[1])
else:
    print(count, "ended")
    sys.exit()
child(number, delay)
"""
)
