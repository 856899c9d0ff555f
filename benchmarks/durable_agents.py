"""One agent of three steps in agentstream, LangGraph and DBOS: begun, or gone on with.

    python -m benchmarks.durable_agents LIBRARY FOLDER URL [PLACE]

What benchmarks/durable.py runs as a process of its own.  "pay" asks the model, makes one call
and asks again; "ship" asks, makes two calls and asks again; "write" asks once: five requests
and three calls, one after the other.  Each call appends a line to FOLDER/ledger.  A request
and a call are the library's smallest unit that can be kept: a node of a graph each, a step
each.  At PLACE, "ask-3-after" say, the process kills itself.  Prints the last answer.
"""

from __future__ import annotations

import json
import operator
import os
import pathlib
import signal
import sys
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

STEPS = ("pay", "ship", "write")
ORDER = "a lamp for ann"
RUN = "order-1"
#: The calls by their names, numbered in the order in which they are made.
CALLS = {"charge": 1, "reserve": 2, "notify": 3}
#: A request's number, by its step and the results that it tells of.
REQUESTS = {("pay", 0): 1, ("pay", 1): 2, ("ship", 0): 3, ("ship", 2): 4, ("write", 0): 5}


def number_of(messages: Sequence[Dict[str, Any]]) -> int:
    """Which of the five requests this is."""
    results = sum(message["role"] == "tool" for message in messages)
    return REQUESTS[messages[0]["content"], results]


class Shop:
    """What the steps of all three do: ask, and make a call; and where the process is killed."""

    def __init__(self, folder: pathlib.Path, url: str, place: str) -> None:
        self.folder = folder
        self.url = url + "/v1"
        self._place = place

    def at(self, place: str) -> None:
        """Die here if this is the place."""
        if place == self._place:
            os.kill(os.getpid(), signal.SIGKILL)

    def ask(self, messages: List[Dict[str, Any]]) -> Dict[str, Any]:
        """The model's message."""
        import requests

        number = number_of(messages)
        self.at(f"ask-{number}-before")
        body = {"model": "m", "messages": messages}
        answer = requests.post(self.url + "/chat/completions", json=body, timeout=30).json()
        self.at(f"ask-{number}-after")
        message: Dict[str, Any] = answer["choices"][0]["message"]
        return message

    def make(self, name: str) -> str:
        """Make a call: a line in the ledger, synced."""
        self.at(f"call-{CALLS[name]}-before")
        with open(self.folder / "ledger", "a") as ledger:
            ledger.write(name + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        self.at(f"call-{CALLS[name]}-after")
        return f"{name}: done"

    def result_of(self, call: Dict[str, Any]) -> Dict[str, Any]:
        """The message with a call's result."""
        text = self.make(call["function"]["name"])
        return {"role": "tool", "tool_call_id": call["id"], "content": text}


def beginning(step: str, given: str) -> List[Dict[str, Any]]:
    """The messages with which a step begins."""
    return [{"role": "system", "content": step}, {"role": "user", "content": given}]


def langgraph(shop: Shop, durability: str) -> str:
    """A node's run for each request and for each call, kept by a SqliteSaver."""
    from typing import Annotated, TypedDict

    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import END, START, StateGraph

    talk = Annotated[List[Any], operator.add]
    state = TypedDict("state", {"order": str, **dict.fromkeys(STEPS, talk)})  # type: ignore[misc]
    graph = StateGraph(state)  # type: ignore[type-var]
    graph.add_edge(START, STEPS[0])

    def add(step: str, before: Callable[[Any], str], after: str) -> None:
        def ask(values: Any) -> Any:
            begun = values[step] or beginning(step, before(values))
            said = shop.ask(begun)
            return {step: [said] if values[step] else [*begun, said]}

        def turn(values: Any) -> str:
            if unanswered(values[step]):
                return f"{step}-call"
            return step if values[step][-1]["role"] == "tool" else after

        graph.add_node(step, ask)
        graph.add_node(
            f"{step}-call",
            lambda values: {step: [shop.result_of(unanswered(values[step])[0])]},
        )
        for node in (step, f"{step}-call"):
            graph.add_conditional_edges(node, turn, [step, f"{step}-call", after])

    add("pay", lambda values: str(values["order"]), "ship")
    add("ship", lambda values: str(values["pay"][-1]["content"]), "write")
    add("write", lambda values: str(values["ship"][-1]["content"]), END)
    with SqliteSaver.from_conn_string(str(shop.folder / "kept.db")) as saver:
        app = graph.compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": RUN}}
        given: Any = None if app.get_state(config).created_at else {"order": ORDER}
        result = app.invoke(given, config, durability=durability)  # type: ignore[arg-type]
        return str(result[STEPS[-1]][-1]["content"])


def unanswered(messages: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The calls of the last answer that have no result yet."""
    asked = [message for message in messages if message["role"] == "assistant"][-1]
    known = {message.get("tool_call_id") for message in messages[messages.index(asked) :]}
    return [call for call in asked.get("tool_calls") or () if call["id"] not in known]


def dbos(shop: Shop) -> str:
    """A step a request and a step a call, in one workflow; over SQLite, its default."""
    from dbos import DBOS, SetWorkflowID

    DBOS(
        config={
            "name": "order",
            "system_database_url": f"sqlite:///{shop.folder / 'kept.db'}",
            "console_log_level": "ERROR",
        }
    )

    @DBOS.step()
    def ask(messages: List[Dict[str, Any]]) -> Dict[str, Any]:
        return shop.ask(messages)

    @DBOS.step()
    def make(call: Dict[str, Any]) -> Dict[str, Any]:
        return shop.result_of(call)

    @DBOS.workflow()
    def work(given: str) -> str:
        for step in STEPS:
            messages = beginning(step, given)
            while True:
                said = ask(messages)
                messages = [*messages, said]
                if not said.get("tool_calls"):
                    break
                messages = [*messages, *map(make, said["tool_calls"])]
            given = said["content"]
        return given

    DBOS.launch()
    try:
        if DBOS.get_workflow_status(RUN) is not None:  # launch has recovered it
            return str(DBOS.retrieve_workflow(RUN).get_result())
        with SetWorkflowID(RUN):
            return str(work(ORDER))
    finally:
        DBOS.destroy()


def agentstream(shop: Shop, on_unknown: str) -> str:
    """Three agents in a workflow; where a person must decide, one who has read the ledger."""
    from agentstream import (
        Agent,
        Approval,
        ChatClient,
        EventStream,
        OpenAIClient,
        Runtime,
        SqliteStore,
        Workflow,
        tool,
    )

    client = OpenAIClient("m", base_url=shop.url, api_key="k", api="chat")

    class Trapped(ChatClient):
        """The client, with the places before a request and behind its answer."""

        model = "m"

        def stream_deltas(self, request: Any, *, cancel: Any = None) -> Iterator[Any]:
            known = [{"role": it.role, "content": it.content} for it in request.messages]
            shop.at(f"ask-{number_of(known)}-before")
            yield from client.stream_deltas(request, cancel=cancel)
            shop.at(f"ask-{number_of(known)}-after")

    def made(name: str) -> Any:
        def call() -> str:
            return shop.make(name)

        call.__name__, call.__doc__ = name, f"{name}."
        return tool(call, on_unknown=on_unknown, alone=True)  # type: ignore[call-overload]

    tools = {"pay": [made("charge")], "ship": [made("reserve"), made("notify")], "write": []}
    steps = [Agent(s, client=Trapped(), system_prompt=s, tools=tools[s]) for s in STEPS]
    workflow = Workflow("order", steps)
    stream = EventStream(SqliteStore(shop.folder / "kept.db"))
    with client, Runtime(event_stream=stream, checkpoints=True) as runtime:
        while True:
            run = runtime.run(workflow, ORDER, workflow_id=RUN, resume=True)
            if run.status != "suspended":
                return str(run.output)
            for call in run.pending:
                was_made = call.tool in (shop.folder / "ledger").read_text().split()
                answer = Approval.no("it has been made") if was_made else Approval.yes()
                runtime.approve(RUN, call.id, answer, by="ann")
                print("asked", call.tool, flush=True)


#: What is compared, and the packages whose versions the table names.
LIBRARIES: Dict[str, Tuple[Callable[[Shop], str], Tuple[str, ...]]] = {
    "agentstream": (lambda shop: agentstream(shop, "suspend"), ("agentstream",)),
    'with "rerun"': (lambda shop: agentstream(shop, "rerun"), ()),
    'LangGraph "sync"': (
        lambda shop: langgraph(shop, "sync"),
        ("langgraph", "langgraph-checkpoint-sqlite"),
    ),
    'LangGraph "async"': (lambda shop: langgraph(shop, "async"), ()),
    "DBOS": (dbos, ("dbos",)),
}


def main(library: str, folder: str, url: str, place: str = "") -> None:
    """Run one of them to its end, or to PLACE."""
    (pathlib.Path(folder) / "ledger").touch()
    print(json.dumps(LIBRARIES[library][0](Shop(pathlib.Path(folder), url, place))))


if __name__ == "__main__":
    main(*sys.argv[1:])
