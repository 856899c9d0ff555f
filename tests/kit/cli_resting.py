"""What tests of the commands for runs that rest share: files that ask, a server that answers."""

from __future__ import annotations

import json

from agentstream.testing import Reply

#: A tool, and what stands for the world: a line for each payment.
TOOLS = '''
from agentstream import tool

@tool
def pay(invoice: str, cents: int) -> str:
    """Pay an invoice."""
    with open("paid.txt", "a") as file:
        file.write(f"{invoice} {cents}\\n")
    return f"{cents} are paid"
'''

#: The clerk asks before it pays; the shipper waits.
ORDER = """
name = "order"
checkpoints = true
[tools.pay]
import = "mytools:pay"
[agents.clerk]
system = "clerk"
tools = ["pay"]
approve = "later"
[agents.shipper]
system = "shipper"
"""
ASKS = f'{ORDER}[[steps]]\nagent = "clerk"\n'
ASKS_AND_WAITS = ASKS + '[[steps]]\nwait = "goods"\n[[steps]]\nagent = "shipper"\n'


def write(cli, text=ASKS, name="order.toml"):
    """The workflow file, with its tool beside it."""
    tools = f"tools_of_{cli.folder.name}"  # a process has one module of a name
    cli.write(f"{tools}.py", TOOLS)
    return cli.write(name, text.replace("mytools:", f"{tools}:"))


def paid(cli):
    """What was paid, a text each."""
    path = cli.folder / "paid.txt"
    return path.read_text().splitlines() if path.exists() else []


def clerk(server, *invoices):
    """A server whose clerk pays these, and says then what became of it."""

    def answer(request):
        messages = request.json["messages"]
        results = [each["content"] for each in messages if each["role"] == "tool"]
        if messages[0]["content"] == "clerk" and not results:
            return Reply.tool_calls(
                *(("pay", json.dumps({"invoice": each, "cents": 900})) for each in invoices)
            )
        return Reply.text("; ".join(results) or f"Shipped: {messages[-1]['content']}")

    server.route("/v1/chat/completions", answer)
