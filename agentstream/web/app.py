"""The WSGI app: runs, their event streams, starting, answering and stopping them, the page.

    from agentstream.web import create_app
    app = create_app(runtime)          # for any WSGI server, or to be mounted in another app
    app = create_app(jobs)             # the same, with runs that workers elsewhere execute

Reading requests and finding routes is werkzeug's; what a stream sends is
streams.py's; what is done for runs that rest, resting.py's; who may ask, auth.py's;
what the page is made of, page/'s.
"""

from __future__ import annotations

import json
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Mapping,
    Optional,
    Sequence,
    Union,
)

from werkzeug.exceptions import (
    BadRequest,
    Conflict,
    HTTPException,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnsupportedMediaType,
)
from werkzeug.routing import BaseConverter, Map, Rule
from werkzeug.wrappers import Request, Response

from agentstream.errors import ConfigError, LogError, OffsetGone
from agentstream.events.store import EventStore, RunState
from agentstream.events.stream import EventStream
from agentstream.jobs import Jobs
from agentstream.runtime.runtime import Runtime
from agentstream.web.auth import Guard, nothing
from agentstream.web.listing import list_runs
from agentstream.web.metrics import CONTENT_TYPE, Metrics
from agentstream.web.page import load_page
from agentstream.web.pushing import KEY
from agentstream.web.registered import Registered, Runnable
from agentstream.web.resting import Resting
from agentstream.web.socket_push import with_push
from agentstream.web.streams import Streams

__all__ = ["App", "Registered", "create_app"]

#: A request's body may have so many bytes.
_MOST_BODY = 2**20
_RETRY_AFTER = "2"  # seconds
_PAGE, _STYLE, _SCRIPT = load_page()

_PAGE_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_STYLE}; script-src {_SCRIPT}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",  # links are not ours: ask nobody before a click
    "X-Content-Type-Options": "nosniff",
}
_STREAM_HEADERS = {
    "Cache-Control": "no-store, no-transform",  # what compresses holds events back
    "X-Accel-Buffering": "no",  # nginx would hold events back
    "X-Content-Type-Options": "nosniff",
}


class _RunConverter(BaseConverter):
    """A run's id: any text, "team/42" too; the routes' own endings are not part of it."""

    regex = ".+?"
    part_isolating = False
    weight = 200


def create_app(
    source: Union[Runtime, Jobs, EventStore],
    token: Optional[str] = None,
    *,
    workflows: Optional[Mapping[str, Union[Runnable, Registered]]] = None,
    hosts: Iterable[str] = (),
    cors: Iterable[str] = (),
    origins: Iterable[str] = (),
    heartbeat: float = 15.0,
    max_streams: int = 300,
) -> App:
    """A WSGI app over a runtime, or over a store that other processes write.

    A stream takes one of the server's threads for as long as it lasts: give it
    `max_streams` and some more.  When the server stops, call `App.close` first.

    Args:
        source: the `Runtime` whose runs it shows, stops and starts; `Jobs`, whose workflows
            it starts likewise, for their workers to execute; or an `EventStore`.
        token: what requests must bring (`Authorization: Bearer ...`); None for none.
        workflows: those that `POST /workflows` may start, by name; needs a runtime.  One
            that needs a context, or has an input of its own, is a `Registered`.  Where the
            runtime keeps checkpoints, a run of theirs that is answered goes on here.
        hosts: Host names it answers to besides loopback's; "*" for any, behind
            a proxy that checks them, "0.0.0.0" for any address (but no name).
        cors: origins whose pages may ask; none unless told.
        origins: what browsers call this server, where a proxy stands before it
            ("https://runs.example.org" for one that ends TLS): the page's own
            requests come from there, and its host is answered to.
        heartbeat: seconds of quiet after which a stream sends a comment.
        max_streams: streams open at once; further ones get 503.

    Raises:
        ConfigError: a setting cannot be used.
    """
    return App(
        source,
        token,
        workflows=workflows or {},
        hosts=hosts,
        cors=cors,
        origins=origins,
        heartbeat=heartbeat,
        max_streams=max_streams,
    )


class App:
    """The app; call it as WSGI does, and `close` it when the server stops."""

    def __init__(
        self,
        source: Union[Runtime, Jobs, EventStore],
        token: Optional[str],
        *,
        workflows: Mapping[str, Union[Runnable, Registered]],
        hosts: Iterable[str],
        cors: Iterable[str],
        origins: Iterable[str],
        heartbeat: float,
        max_streams: int,
    ) -> None:
        self._jobs = source if isinstance(source, Jobs) else None
        self._runtime = source.runtime if isinstance(source, Jobs) else _runtime(source)
        if self._runtime is not None:
            self._events = self._runtime.event_stream
        else:
            assert isinstance(source, EventStore)
            self._events = EventStream(source)
        if self._jobs is not None and workflows:
            raise ConfigError("the workflows that can be started are those of the Jobs")
        if workflows and self._runtime is None:
            raise ConfigError("workflows can be started by a Runtime or Jobs only")
        if not heartbeat > 0 or max_streams < 1:
            raise ConfigError("heartbeat and max_streams must be positive")
        self._store = self._events.store
        self._workflows = {
            name: one if isinstance(one, Registered) else Registered(one)
            for name, one in (workflows if self._jobs is None else self._jobs.workflows).items()
        }
        self._resting = Resting(self._store, self._runtime, self._workflows, self._jobs)
        self._guard = Guard(token, hosts, cors, origins)
        self._streams = Streams(self._events, max_streams, heartbeat)
        self._metrics = Metrics(self._events, self._streams.__len__)
        self._routes = self._map()

    def _map(self) -> Map:
        return Map(
            [
                Rule("/", endpoint=self._page, methods=["GET"]),
                Rule("/login", endpoint=self._login, methods=["POST"]),
                Rule("/healthz", endpoint=self._health, methods=["GET"]),
                Rule("/metrics", endpoint=self._measure, methods=["GET"]),
                Rule("/workflows", endpoint=self._list, methods=["GET"]),
                Rule("/workflows", endpoint=self._start, methods=["POST"]),
                Rule("/workflows/<run:run>", endpoint=self._show, methods=["GET"]),
                Rule("/workflows/<run:run>/stream", endpoint=self._stream, methods=["GET"]),
                Rule("/workflows/<run:run>/stop", endpoint=self._stop, methods=["POST"]),
                Rule("/workflows/<run:run>/resume", endpoint=self._resume, methods=["POST"]),
                Rule(
                    "/workflows/<run:run>/approvals/<call>",
                    endpoint=self._approve,
                    methods=["POST"],
                ),
                Rule(
                    "/workflows/<run:run>/signals/<run:name>",
                    endpoint=self._signal,
                    methods=["POST"],
                ),
                Rule("/events/stream", endpoint=self._stream_all, methods=["GET"]),
            ],
            strict_slashes=False,
            redirect_defaults=False,
            merge_slashes=False,
            converters={"run": _RunConverter},
        )

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """WSGI (PEP 3333)."""
        start_response = with_push(environ, start_response)
        request = Request(environ)
        if self._jobs is not None:
            self._jobs.watch()  # in this process: it may have been forked since the app was made
        try:
            response = self._answer(request)
        except HTTPException as error:
            response = _problem(error)
        except LogError as error:
            response = _problem(ServiceUnavailable(str(error)))
        if request.method == "HEAD":
            response.close()  # nobody will iterate it
        response.headers.extend(self._guard.cors(request))
        return response(environ, start_response)

    @property
    def max_streams(self) -> int:
        """Streams that may be open at once; each takes one of its server's threads."""
        return self._streams.most

    @property
    def open_streams(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def close(self, wait: float = 0.0) -> bool:
        """End all streams, whose clients are told to come back; a server that stops calls it first.

        Waits up to `wait` seconds until they are over, and returns whether they
        are.  A store that the app was made of is closed; a runtime is not.
        """
        over = self._streams.close(wait)
        self._metrics.close()
        if self._runtime is None:
            self._events.close()
        return over

    def _answer(self, request: Request) -> Response:
        self._guard.check_place(request)
        if request.method == "OPTIONS" and self._guard.cors(request):
            return nothing()
        endpoint, values = self._routes.bind_to_environ(request.environ).match()
        if endpoint not in (self._page, self._login, self._health):
            self._guard.check_token(request)
        answer: Callable[..., Response] = endpoint
        return answer(request, **values)

    # --- the page ---------------------------------------------------------------------------

    def _page(self, request: Request) -> Response:
        return Response(_PAGE, mimetype="text/html", headers=_PAGE_HEADERS)

    def _login(self, request: Request) -> Response:
        given = _json(request).get("token", "")
        return self._guard.let_in(request, given if isinstance(given, str) else "")

    def _health(self, request: Request) -> Response:
        return _reply({"status": "ok", "token": self._guard.needs_token})

    def _measure(self, request: Request) -> Response:
        return Response(
            self._metrics.page(), content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"}
        )

    # --- runs -------------------------------------------------------------------------------

    def _list(self, request: Request) -> Response:
        limit = _number(request.args.get("limit", "100"), "limit")
        statuses = [status for status in request.args.getlist("status") if status]
        runs = list_runs(self._store, min(limit, 1000), statuses, request.args.get("q", ""))
        listed = [{**run.listed(), "pending": self._resting.listed(run)} for run in runs]
        return _reply({"workflows": listed, "registered": sorted(self._workflows)})

    def _show(self, request: Request, run: str) -> Response:
        state = self._state(run)
        return _reply({**state._asdict(), **self._resting.shown(state)})

    def _state(self, run: str) -> RunState:
        state = self._store.run(run)
        if state is None:
            raise NotFound(f"there is no run {run[:64]!r}")
        return state

    def _start(self, request: Request) -> Response:
        body = _json(request)
        name, text = body.get("workflow"), body.get("input", "")
        if not isinstance(name, str) or not isinstance(text, str):
            raise BadRequest('expected {"workflow": name, "input": text}')
        workflow = self._workflows.get(name)
        if workflow is None or self._runtime is None:
            known = ", ".join(sorted(self._workflows)) or "none"
            raise NotFound(f"there is no workflow {name[:64]!r} to start; known: {known}")
        if self._jobs is not None:
            try:
                return _reply({"workflow_id": self._jobs.start(name, text)}, 201)
            except ConfigError as error:
                raise BadRequest(str(error)) from None
        try:
            handle = self._runtime.submit(
                workflow.workflow, text or workflow.input, context=workflow.context()
            )
        except RuntimeError as error:
            raise ServiceUnavailable(str(error)) from None
        return _reply({"workflow_id": handle.workflow_id}, 201)

    def _stop(self, request: Request, run: str) -> Response:
        _json(request)
        if self._runtime is not None:
            stopping = self._runtime.stop_generation(run, "stopped over HTTP")
        else:
            stopping = bool(self._store.request_stop(run, "stopped over HTTP"))
        if not stopping:
            state = self._state(run)
            raise Conflict(f"run {run[:64]!r} is not running: it is {state.status}")
        return _reply({"workflow_id": run, "stopping": True}, 202)

    # --- runs that rest ---------------------------------------------------------------------

    def _approve(self, request: Request, run: str, call: str) -> Response:
        body = _json(request)
        self._resting.approve(self._state(run), call, body)
        return _reply({"workflow_id": run, "call": call, "resumed": self._resting.go_on(run)}, 202)

    def _signal(self, request: Request, run: str, name: str) -> Response:
        body = _json(request)
        self._resting.signal(self._state(run), name, body)
        resumed = self._resting.go_on(run)
        return _reply({"workflow_id": run, "signal": name, "resumed": resumed}, 202)

    def _resume(self, request: Request, run: str) -> Response:
        _json(request)
        resumed = self._resting.resume(self._state(run))
        return _reply({"workflow_id": resumed, "resumed": True}, 202)

    # --- streams ----------------------------------------------------------------------------

    def _stream(self, request: Request, run: str) -> Response:
        state = self._state(run)
        after = _after(request)
        if after is not None and after == state.last_offset and self._store.has_ended(run):
            return nothing()  # that was all: an EventSource stops at this
        return self._open_stream(request, run, after)

    def _stream_all(self, request: Request) -> Response:
        return self._open_stream(request, None, _after(request), request.args.getlist("run"))

    def _open_stream(
        self, request: Request, run: Optional[str], after: Optional[int], only: Sequence[str] = ()
    ) -> Response:
        try:
            stream = self._streams.open(run, after, only, request.environ.get(KEY))
        except OffsetGone as gone:
            raise BadRequest(str(gone)) from None
        if stream is None:
            raise ServiceUnavailable("no further stream: too many are open, or the server stops")
        response = Response(
            stream, mimetype="text/event-stream", headers=_STREAM_HEADERS, direct_passthrough=True
        )
        if stream.place is not None:  # where to come back to, if it is cut before its first event
            response.headers["Last-Event-ID"] = str(stream.place)
        response.call_on_close(stream.close)
        return response


def _runtime(source: object) -> Optional[Runtime]:
    """The source, if it is a runtime; None for a store.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(source, Runtime):
        return source
    if not isinstance(source, EventStore):
        kind = type(source).__name__
        raise ConfigError(f"expected a Runtime, Jobs or an EventStore, not {kind}")
    return None


def _reply(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(
        json.dumps(value, ensure_ascii=False, allow_nan=False),
        status=status,
        mimetype="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def _problem(error: HTTPException) -> Response:
    code = error.code or 500
    response = _reply({"error": {"code": code, "message": error.description or error.name}}, code)
    if code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if code == 503:
        response.headers["Retry-After"] = _RETRY_AFTER
    if code == 405 and getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(error.valid_methods)  # type: ignore[attr-defined]
    return response


def _json(request: Request) -> Dict[str, Any]:
    """The body's JSON object.  Only with its own Content-Type, which no plain form can send."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("send JSON, with Content-Type: application/json")
    if (request.content_length or 0) > _MOST_BODY:
        raise RequestEntityTooLarge(f"a body may have {_MOST_BODY} bytes")
    data = request.stream.read(_MOST_BODY + 1)
    if len(data) > _MOST_BODY:
        raise RequestEntityTooLarge(f"a body may have {_MOST_BODY} bytes")
    try:
        value = json.loads(data or b"{}", parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    return value


def _no_number(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _after(request: Request) -> Optional[int]:
    """Where to go on: Last-Event-ID, which a browser sends when it comes back, else ?after=."""
    given = request.headers.get("Last-Event-ID") or request.args.get("after")
    return None if given is None else _number(given, "Last-Event-ID")


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest(f"{what} must be a whole number from 0 on")
    return int(text)
