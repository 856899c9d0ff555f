"""ScriptedServer: a loopback HTTP server that answers what a test has queued.

Here are the listening socket, the threads, the choice of a reply, and the record
of what happened.  How a reply is played is in replies.py, on what in link.py.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import tempfile
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from agentstream.testing.actions import Action, Piece, Stage, as_actions
from agentstream.testing.certificates import server_context
from agentstream.testing.link import Link, ScriptEnded, Signal
from agentstream.testing.replies import Reply
from agentstream.testing.request import Request

__all__ = ["ScriptedServer"]

logger = logging.getLogger("agentstream.testing")

#: What a llama.cpp server with a tool-aware template says of itself.
_PROPS = {"default_generation_settings": {}, "chat_template_caps": {"supports_tools": True}}

_CLOSE_BOUND = 5.0  # seconds for threads to end; only a stuck Callback or route needs any


class ScriptedServer:
    """Listens on 127.0.0.1 from its construction to `close`; a context manager.

    GET /props, with which a LlamaClient asks whether tools are known, is answered
    by itself (they are) and not recorded, unless a reply is queued for that path.

    `tls` True serves TLS with a certificate that `verify=server.ca_file` accepts,
    "expired" one whose time is over.  Every method may be called from any thread.

    Attributes:
        url: "http://127.0.0.1:PORT", or https://.
        port: the port.
        ca_file: path of the certificate, to verify against; "" without TLS.
    """

    def __init__(self, *, tls: Union[bool, str] = False, port: int = 0) -> None:
        if tls not in (False, True, "expired"):
            raise ValueError(f"tls is False, True or 'expired'; not {tls!r}")
        self._changed = threading.Condition()  # guards all below
        self._queues: Dict[Optional[str], Deque[Reply]] = {}  # by path; None: any
        self._defaults: Dict[Optional[str], Reply] = {}
        self._routes: Dict[str, Callable[[Request], Reply]] = {}
        self._connect_queue: Deque[List[Action]] = deque()
        self._connect_default: List[Action] = []
        self._requests: List[Request] = []
        self._unscripted: List[Request] = []
        self._outcomes: Dict[int, str] = {}
        self._links: Dict[int, Link] = {}
        self._threads: List[threading.Thread] = []
        self._connections = 0
        self._active = 0
        with contextlib.ExitStack() as undo:
            self._context: Optional[ssl.SSLContext] = None
            self.ca_file = ""
            if tls:
                directory = tempfile.TemporaryDirectory(prefix="agentstream-testing-")
                undo.callback(directory.cleanup)
                self._context, self.ca_file = server_context(directory, tls == "expired")
            self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
            self._listener.setblocking(False)
            undo.callback(self._listener.close)
            self._closing = Signal()
            undo.callback(self._closing.close)
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(self._closing, selectors.EVENT_READ)
            self.port: int = self._listener.getsockname()[1]
            self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
            self._acceptor = self._start("accept", self._accept)
            self._release = undo.pop_all()

    def __repr__(self) -> str:
        state = "closed" if self._closing.is_set else "open"
        return f"<ScriptedServer {self.url}, {state}>"

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End every script, close every socket, join every thread.  Idempotent.

        Takes at most 5 seconds, and those only if a Callback or a route hangs,
        which a warning in the log then tells.
        """
        with self._changed:
            self._closing.set()
        self._acceptor.join()  # so that none is added to what follows
        with self._changed:
            links, threads = list(self._links.values()), list(self._threads)
        for link in links:
            link.abort()
        end = time.monotonic() + _CLOSE_BOUND
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))
                if thread.is_alive():
                    logger.warning("%s is stuck in the test's own code", thread.name)
        self._release.close()

    # --- scripting ---

    def reply(
        self, *pieces: Piece, path: Optional[str] = None, repeat: bool = False, **options: Any
    ) -> Reply:
        """Queue `Reply(*pieces, **options)`: it answers the next request.

        With `path` the next request for that path (its query does not count);
        such replies, routes included, go before those for any path.  With
        `repeat` it answers whatever finds no queued one.  Returns the Reply.
        """
        return self._add(Reply(*pieces, **options), path, repeat)

    def reply_text(
        self, *texts: str, path: Optional[str] = None, repeat: bool = False, **options: Any
    ) -> Reply:
        """Queue a whole chat-completions stream of these texts; see `Reply.text`."""
        return self._add(Reply.text(*texts, **options), path, repeat)

    def reply_tool_calls(
        self,
        *calls: Tuple[str, Union[str, Mapping[str, Any]]],
        path: Optional[str] = None,
        repeat: bool = False,
        **options: Any,
    ) -> Reply:
        """Queue a stream that calls tools, each `(name, arguments)`; see `Reply.tool_calls`."""
        return self._add(Reply.tool_calls(*calls, **options), path, repeat)

    def reply_json(
        self, value: object, *, path: Optional[str] = None, repeat: bool = False, **options: Any
    ) -> Reply:
        """Queue an answer that is one JSON body; `status=429` and so on make it an error."""
        return self._add(Reply.json(value, **options), path, repeat)

    def default(self, *pieces: Piece, **options: Any) -> Reply:
        """`reply` with `repeat=True`."""
        return self.reply(*pieces, repeat=True, **options)

    def route(self, path: str, function: Callable[[Request], Reply]) -> None:
        """Answer requests for `path`, when none is queued for it, with `function(request)`.

        It runs in the connection's thread.  What it raises ends the connection
        and goes to `threading.excepthook`.
        """
        with self._changed:
            self._routes[path] = function

    def on_connect(self, *pieces: Piece, repeat: bool = False) -> None:
        """What the next connection (`repeat`: every other one) meets before it is read from.

        On TLS that is before the handshake.  `Cut` here races with the request
        that the client sends into it, `Reset` with the end of its connect;
        `before_headers=[Cut()]`, after the request, does not.
        """
        actions = as_actions(pieces)
        with self._changed:
            if repeat:
                self._connect_default = actions
            else:
                self._connect_queue.append(actions)

    # --- the record ---

    @property
    def requests(self) -> List[Request]:
        """Every request read so far, answered or not."""
        with self._changed:
            return list(self._requests)

    @property
    def unscripted(self) -> List[Request]:
        """Those that found no reply and got the 500."""
        with self._changed:
            return list(self._unscripted)

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._connections

    @property
    def open_connections(self) -> int:
        """How many of them are open, idle ones included."""
        with self._changed:
            return self._connections - len(self._outcomes)

    @property
    def active(self) -> int:
        """How many connections have a script playing now."""
        return self._active

    @property
    def outcomes(self) -> Dict[int, str]:
        """How each connection that is over ended, by its id.

        "done" (the framing's end, or the client left between two requests), "cut"
        and "reset" (as scripted), "client_gone" (it left in mid-script),
        "server_closed", "tls_failed", "bad_request" (not HTTP, or half a request),
        "error" (a Callback, route or Action raised).
        """
        with self._changed:
            return dict(self._outcomes)

    def wait_connections(self, count: int = 1, timeout: float = 5.0) -> bool:
        """True once `count` connections have been accepted; False after `timeout` seconds."""
        return self._wait(lambda: self._connections >= count, timeout)

    def wait_requests(self, count: int = 1, timeout: float = 5.0) -> bool:
        """True once `count` requests have been read; False after `timeout` seconds."""
        return self._wait(lambda: len(self._requests) >= count, timeout)

    def wait_client_gone(self, timeout: float = 5.0, count: int = 1) -> bool:
        """True once `count` clients have left in mid-script; False after `timeout` seconds."""
        outcomes = self._outcomes
        return self._wait(lambda: list(outcomes.values()).count("client_gone") >= count, timeout)

    def wait_idle(self, timeout: float = 5.0) -> bool:
        """True once no script is playing; False after `timeout` seconds."""
        return self._wait(lambda: not self._active, timeout)

    def wait_closed(self, connection_id: int, timeout: float = 5.0) -> bool:
        """True once that connection is in `outcomes`; False after `timeout` seconds."""
        return self._wait(lambda: connection_id in self._outcomes, timeout)

    def _wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(predicate, min(timeout, threading.TIMEOUT_MAX))

    # --- the threads ---

    def _start(self, name: str, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(
            target=target, args=args, name=f"agentstream-testing-{name}", daemon=True
        )
        with self._changed:
            self._threads = [old for old in self._threads if old.is_alive()]
            thread.start()
            self._threads.append(thread)
        return thread

    def _accept(self) -> None:
        while not self._closing.is_set:
            self._selector.select()
            try:
                self._admit()
            except (BlockingIOError, ConnectionError):
                continue
            except (OSError, RuntimeError):  # no descriptor, no thread: a test's doing
                with self._changed:
                    self._changed.wait(0.01)

    def _admit(self) -> None:
        sock, _ = self._listener.accept()
        with self._changed:
            if self._closing.is_set:
                sock.close()
                return
            number = self._connections = self._connections + 1
            link = self._links[number] = Link(sock, number, self._closing)
            # Here, not in the thread: connections come in the order of their connects.
            queue = self._connect_queue
            greeting = queue.popleft() if queue else self._connect_default
            self._changed.notify_all()
        try:
            self._start(f"connection-{number}", self._serve, link, greeting)
        except RuntimeError:
            self._over(link, "error")
            raise

    def _serve(self, link: Link, greeting: List[Action]) -> None:
        outcome = "error"
        try:
            outcome = self._converse(link, greeting)
        except ScriptEnded as ended:
            outcome = ended.outcome
        finally:
            self._over(link, outcome)

    def _over(self, link: Link, outcome: str) -> None:
        # Recorded first: whoever sees the connection end may look at once.
        with self._changed:
            self._outcomes[link.id] = outcome
            self._changed.notify_all()
        {"done": link.end, "reset": link.reset}.get(outcome, link.cut)()
        with self._changed:
            del self._links[link.id]
            self._changed.notify_all()

    def _converse(self, link: Link, greeting: List[Action]) -> str:
        """One connection's life; returns its outcome unless a script ended it."""
        if greeting:
            with self._playing():
                for action in greeting:
                    action.play(Stage(link))
        if self._context is not None:
            link.handshake(self._context)
        goes_on = True
        while goes_on:
            try:
                request = link.read_request()
            except ValueError:
                return "server_closed" if self._closing.is_set else "bad_request"
            if request is None:
                return "done"
            with self._playing():
                goes_on = self._reply_to(request).play(request, link)
        return "done"

    @contextlib.contextmanager
    def _playing(self) -> Iterator[None]:
        with self._changed:
            self._active += 1
        try:
            yield
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def _reply_to(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        if path == "/props" and request.method == "GET" and not self._has_own("/props"):
            return Reply.json(_PROPS)  # not recorded: it is no part of a script
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            found = self._take(path) or self._routes.get(path) or self._take(None)
            if found is None:
                self._unscripted.append(request)
                found = _unscripted(request, len(self._requests))
        return found if isinstance(found, Reply) else found(request)

    def _has_own(self, path: str) -> bool:
        return bool(path in self._routes or self._queues.get(path) or self._defaults.get(path))

    def _take(self, path: Optional[str]) -> Optional[Reply]:
        queue = self._queues.get(path)
        return queue.popleft() if queue else self._defaults.get(path)

    def _add(self, reply: Reply, path: Optional[str], repeat: bool) -> Reply:
        with self._changed:
            if repeat:
                self._defaults[path] = reply
            else:
                self._queues.setdefault(path, deque()).append(reply)
        return reply


def _unscripted(request: Request, number: int) -> Reply:
    message = (
        f"ScriptedServer has no reply left for {request.method} {request.path}, its request "
        f"number {number}; queue one with reply(), or one for all with default()"
    )
    return Reply.json({"error": {"message": message, "type": "unscripted_request"}}, status=500)
