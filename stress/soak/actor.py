"""The operations of a soak: calls, agents, workflows and runtimes, one after the other."""

from __future__ import annotations

import random
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

from agentstream import (
    Agent,
    AgentStreamError,
    CancelToken,
    Closed,
    LogError,
    Runtime,
    Workflow,
    WorkflowFailed,
)
from stress.soak.cases import Case, fire
from stress.soak.judge import Judge
from stress.soak.record import (
    ENDS,
    SLACK,
    Record,
    hunt,
)
from stress.soak.script import PROMPT, Attempt
from stress.soak.shaped import run_shaped
from stress.soak.subscribers import Seen
from stress.soak.tools import LIMITS


class Actor:
    """Does one thing after another: the operations of the soak."""

    def __init__(self, soak: Any, prefix: str) -> None:
        self.soak = soak
        self.record: Record = soak.record
        self.judge: Judge = soak.judge
        self.prefix = prefix
        self.number = 0

    def step(self) -> None:
        """One operation, drawn from the seed."""
        self.number += 1
        name = f"{self.prefix}{self.number}"
        rng = random.Random(f"{self.record.seed}:{name}:case")
        kind, weight = zip(*self.soak.operations)
        chosen = rng.choices(kind, weight)[0]
        if chosen in ("agent", "workflow") and rng.random() < 0.3:
            name += "t"
        case = Case(name, chosen, rng.choice(self.soak.clients), rng)
        self.soak.active[name] = case
        try:
            getattr(self, "_" + chosen)(case)
        except Exception:
            self.record.break_("untyped error", f"{case}: {traceback.format_exc()}")
        finally:
            self.soak.canceller.drop(case)
            self.soak.active.pop(name, None)

    def _messages(self, call: str) -> List[Dict[str, str]]:
        return [
            {"role": "system", "content": f"[[{call}]] {PROMPT}"},
            {"role": "user", "content": "go on"},
        ]

    def plan_cancel(self, case: Case, ways: List[Tuple[str, Callable[[], object]]]) -> None:
        if case.rng.random() > 0.35:
            return
        delay = case.rng.choice(
            [0.0, case.rng.uniform(0, 0.05), case.rng.uniform(0, 0.6), case.rng.uniform(0, 2.0)]
        )
        how, cancel = case.rng.choice(ways)
        self.soak.canceller.at(delay, case, how, cancel)
        if case.rng.random() < 0.2:  # twice does no harm
            self.soak.canceller.at(delay + 0.01, case, how, cancel)

    # a text stream, cancelled, closed elsewhere or left in the middle

    def _plain(self, case: Case) -> None:
        call = case.name
        token = CancelToken()
        stream = case.config.client.chat_stream(self._messages(call), cancel=token)
        self.plan_cancel(
            case,
            [
                ("stream.cancel", stream.cancel),
                ("token", token.cancel),
                ("stream.close", stream.close),
            ],
        )
        leave_at = case.rng.randint(1, 20) if case.rng.random() < 0.1 else 0
        got: List[str] = []
        error: Optional[BaseException] = None
        left = False
        try:
            for text in stream:
                got.append(text)
                if len(got) == leave_at:
                    left = True
                    break
        except AgentStreamError as caught:
            error = caught
        took = time.monotonic() - case.started
        held = stream.response.content
        stream.close()
        if held != "".join(got):
            self.record.break_("I2 partial", f"{case}: {held[-80:]!r} != {''.join(got)[-80:]!r}")
        closed = case.cancel_how == "stream.close" and error is None
        self._end(case, call, "".join(got), error, took, left or closed)

    def _end(self, case: Case, call: str, text: str, error: Any, took: float, left: bool) -> None:
        attempts = self.judge.attempts(case, call)
        if error is not None and error.partial is not None:
            if error.partial.content != text:
                self.record.break_("I2 partial", f"{case}: {error.partial.content[-80:]!r}")
        self.judge.text(case, call, text, error is None and not left, attempts, error)
        if len(attempts) > case.config.retries.attempts + 3:
            self.record.break_("I3 too many tries", self.judge.story(call, attempts))
        if left:
            self.record.count("left in the middle")
            self.record.outcome(case.kind, "left", ())
            if took > case.bound + SLACK:
                self.record.break_("hung", f"{case}: took {took:.2f} s, then was left")
        else:
            self.judge.outcome(case, error, took, attempts)

    def _deltas(self, case: Case) -> None:
        from agentstream import ChatRequest

        call = case.name
        token = CancelToken()
        case_request = ChatRequest(self._messages(call))
        deltas = case.config.client.stream_deltas(case_request, cancel=token)
        self.plan_cancel(case, [("token", token.cancel)])
        got: List[str] = []
        error: Optional[BaseException] = None
        try:
            for delta in deltas:
                if delta.retry is not None:
                    hunt(self.record, repr(delta.retry), f"retry notice of {case}")
                    if "".join(got):
                        self.record.break_("I3 notice after text", f"{case}: {delta.retry}")
                got.append(delta.content)
        except AgentStreamError as caught:
            error = caught
        took = time.monotonic() - case.started
        self._end(case, call, "".join(got), error, took, False)

    # an agent, with or without a log

    def _agent(self, case: Case) -> None:
        call = case.name
        token = CancelToken()
        agent = self.make_agent(case, call)
        case.bound = case.config.bound * 2  # two rounds
        self.plan_cancel(case, [("token", token.cancel)])
        got: List[str] = []
        error: Optional[BaseException] = None
        logged = case.rng.random() < 0.5
        whole: Optional[str] = None
        try:
            if logged:
                whole = agent.execute_with_events(
                    "go on", self.soak.events, workflow_id=call, cancel=token
                ).response
            else:
                for text in agent.stream("go on", cancel=token):
                    got.append(text)
        except AgentStreamError as caught:
            error = caught
        took = time.monotonic() - case.started
        if logged:
            got = self._logged(case, call, whole)
        attempts = self.judge.attempts(case, call)
        self.judge.text(case, call, "".join(got), error is None, attempts, error)
        self.judge.tools(case, call, attempts, whole=error is None)
        self.judge.outcome(case, error, took, attempts)

    def _logged(self, case: Case, call: str, whole: Optional[str]) -> List[str]:
        last = self.soak.events.store.bounds(call).last
        seen = self.soak.checker.pop(call, f"{call}:{last}") if last else None
        if seen is None:
            self.record.count("unseen agent log")
            return []
        got = seen.chunks.get("", [])
        if whole is not None and not "".join(got).endswith(whole):
            self.record.break_("I2 events", f"{case}: {whole[-80:]!r}")
        return got

    def make_agent(self, case: Case, call: str, *, tools: bool = False) -> Agent:
        given = self.soak.ledger.tools() if tools or case.name.endswith("t") else []
        prompt = f"[[{call}]] {PROMPT}"
        return Agent(
            "bird",
            client=case.config.client,
            system_prompt=prompt,
            tools=given,
            tool_limits=LIMITS,
        )

    # a workflow of two steps

    def _workflow(self, case: Case) -> None:
        runtime: Runtime = self.soak.runtime
        name = case.name
        steps = [self.make_agent(case, f"{name}.{i}") for i in (0, 1)]
        case.bound = case.config.bound * 4 + 30.0  # two rounds each, and a place to wait for
        workflow = Workflow("soak", steps)
        if case.rng.random() < 0.2:
            return self._streamed(case, runtime, workflow)
        handle = runtime.submit(workflow, "go on", workflow_id=name)
        self.plan_cancel(
            case,
            [
                ("handle.cancel", handle.cancel),
                ("stop_generation", lambda: runtime.stop_generation(name)),
            ],
        )
        reader = None
        if case.rng.random() < 0.2:
            try:
                reader = runtime.event_stream.subscribe(workflow_id=name, after=0)
            except LogError:  # nothing of it yet, or nothing any more
                self.record.count("late subscriber refused")
        error: Any = None
        run: Any = None
        try:
            run = handle.result(case.bound + SLACK)
        except AgentStreamError as caught:
            error, run = caught, caught.run  # type: ignore[attr-defined]
        took = time.monotonic() - case.started
        seen = self.soak.checker.wait_end(name)
        if reader is not None:
            self._read_again(case, reader, seen)
        self._judge_run(case, run, error, took, seen)
        self.soak.acknowledge(name, seen)

    def _streamed(self, case: Case, runtime: Runtime, workflow: Workflow) -> None:
        name = case.name
        leave_at = case.rng.randint(2, 40) if case.rng.random() < 0.4 else 0
        self.plan_cancel(case, [("stop_generation", lambda: runtime.stop_generation(name))])
        last = ""
        events = runtime.stream(workflow, "go on", workflow_id=name, raise_on_failure=False)
        for count, event in enumerate(events, 1):
            last = event.type.value
            if count == leave_at:
                fire(self.record, case, "left the loop", events.close)
                break
        else:
            if last not in ENDS:
                self.record.break_("I1 last event", f"{case}: {last!r}")
        took = time.monotonic() - case.started
        seen = self.soak.checker.wait_end(name)
        self.soak.acknowledge(name, seen)
        for i in (0, 1):
            self.soak.ledger.pop(f"{name}.{i}")
        attempts = [a for i in (0, 1) for a in self.judge.attempts(case, f"{name}.{i}")]
        self.record.outcome("streamed", ENDS.get(seen.end if seen else "", "unseen"), ())
        if took > case.bound + SLACK:
            self.record.break_("hung", f"{case}: took {took:.2f} s; " + str(attempts)[:500])

    def _read_again(self, case: Case, reader: Any, seen: Optional[Seen]) -> None:
        ids = []
        while True:
            try:
                event = reader.get(10.0)
            except Closed:
                break
            if event is None:
                self.record.break_("I4 reader waits", f"{case}: {ids[-1:]}")
                break
            ids.append(event.id)
        reader.close()
        if None in ids:
            self.record.count("reader missed events")
        elif seen is not None and ids != seen.ids:
            self.record.break_("I4 readers differ", f"{case}: {ids} / {seen.ids}")

    def _judge_run(
        self, case: Case, run: Any, error: Any, took: float, seen: Optional[Seen]
    ) -> None:
        wanted = {"completed": "ok", "failed": "failed", "cancelled": "cancelled"}[run.status]
        if seen is None:
            self.record.count("unseen run")
        elif not seen.end:
            self.record.break_("I1 no terminal event", f"{case}: {seen.ids[-1:]}")
        elif ENDS[seen.end] != wanted:
            self.record.break_("I1 other end", f"{case}: {seen.end} / {run.status}")
        cause = error.__cause__ if isinstance(error, WorkflowFailed) else error
        everything: List[Attempt] = []
        for number in (0, 1):
            call = f"{case.name}.{number}"
            attempts = self.judge.attempts(case, call)
            everything += attempts
            done = len(run.steps) > number and run.steps[number].status == "completed"
            self.judge.tools(case, call, attempts, whole=done)
            if number >= len(run.steps):
                if attempts:
                    self.record.break_("X03 request of no step", f"{case}: {call}")
                continue
            step = run.steps[number]
            if seen is None:
                continue
            text = "".join(seen.chunks.get(str(number), []))
            self.judge.text(case, call, text, done, attempts, None if done else cause)
            if not text.endswith(step.output) or (not done and text != step.output):
                self.record.break_("I2 step output", f"{case}: {step.output[-80:]!r}")
        self.judge.outcome(case, error, took, everything)

    # a workflow of random shapes

    def _shapes(self, case: Case) -> None:
        run_shaped(self, case)

    # a runtime of its own, left by an exception with runs under way

    def _runtime(self, case: Case) -> None:
        handles = []
        begun = 0.0
        try:
            with Runtime(max_workers=2) as runtime:
                for number in range(4):
                    agent = self.make_agent(case, f"{case.name}_{number}")
                    handles.append(runtime.submit(agent, "go on"))
                self.soak.halt.wait(case.rng.uniform(0.0, 0.3))
                begun = time.monotonic()
                raise KeyError("soak leaves")
        except KeyError:
            self.record.sample("runtime left", time.monotonic() - begun)
        for handle in handles:
            if not handle.done():
                self.record.break_("run outlived its runtime", f"{case}")
                continue
            try:
                handle.result(0)
                self.record.outcome(case.kind, "ok", ())
            except AgentStreamError as error:
                cause = error.__cause__ if isinstance(error, WorkflowFailed) else error
                self.record.outcome(case.kind, f"{error.outcome}({type(cause).__name__})", ())
        for number in range(4):
            self.judge.attempts(case, f"{case.name}_{number}")
