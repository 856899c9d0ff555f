"""Three agents, one after the other, streaming to the terminal from a real model.

    python demo.py                              a small model on this machine, fetched once
    python demo.py "Good evening"               another greeting
    python demo.py --base-url http://host:8080  your own llama-server (--insecure: self-signed)
    python demo.py --provider openai            OpenAI, with OPENAI_API_KEY
    python demo.py --provider anthropic         Anthropic, with ANTHROPIC_API_KEY
    python demo.py --provider ollama --model M  a model that Ollama has

Read it from the bottom up: `main` picks a model, `run` streams the workflow,
`build_workflow` says what the agents do.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any, Dict, Iterator, Tuple

try:
    from agentstream import (
        Agent,
        AgentStreamError,
        ChatClient,
        Console,
        Runtime,
        Workflow,
        WorkflowRun,
    )
    from agentstream.local import ProgressBar, find_llama_server
    from agentstream.providers import PROVIDERS, start_server
except ModuleNotFoundError as error:
    sys.exit(
        f"demo.py: {error.name} is not installed; set everything up and run the demo with\n"
        "  python3 -m venv .venv && .venv/bin/pip install -e '.[local]' && .venv/bin/python demo.py"
    )

GREETING = "Hello!"
RULE = "=" * 60

# A small model does best when it is shown what is wanted.
GREETER = """Greet the user warmly in two sentences.

Message: Good evening.
Greeting: Good evening, and welcome! It is a pleasure to have you with us tonight.

Message: My name is Tom.
Greeting: Welcome, Tom! I am delighted to meet you, and I hope that you will feel at home here."""

ANALYZER = """Describe the tone and the intent of the text in two sentences.

Text: Good morning, come in!
Description: This is a morning greeting with a warm and friendly tone. The writer wants the \
reader to come in.

Text: What a pity that the shop is closed.
Description: This is a short comment with a disappointed tone. The writer wants to go shopping."""

SUMMARIZER = """Summarize the text in one sentence.

Text: This is a morning greeting with a warm and friendly tone. The writer wants the reader to \
come in.
Summary: The text conveys a warm and friendly tone while inviting the reader to come in.

Text: This is a short comment with a disappointed tone. The writer wants to go shopping.
Summary: The text conveys a disappointed tone while saying that the writer wants to go shopping."""


def build_workflow(client: ChatClient) -> Workflow:
    """Each agent is a model with a task; each one's answer is the next one's input."""

    def agent(name: str, system_prompt: str, **penalties: float) -> Agent:
        # What keeps a small model to its line; Anthropic's need and take none of it.
        steady: Dict[str, Any] = {"temperature": 0, "seed": 1, "stop": ["\n"], "extra": penalties}
        if client.provider == "anthropic":
            steady = {}
        return Agent(name, client=client, system_prompt=system_prompt, max_tokens=100, **steady)

    greeter = agent("greeter", GREETER, frequency_penalty=0.5)
    analyzer = agent("analyzer", ANALYZER, frequency_penalty=0.5)
    summarizer = agent("summarizer", SUMMARIZER, presence_penalty=1.0, frequency_penalty=0.2)
    return Workflow("demo", [greeter, analyzer, summarizer])


def run(client: ChatClient, where: str, greeting: str, console: Console) -> WorkflowRun:
    """Stream the workflow to the console, which hears of it through a callback on the bus."""
    workflow = build_workflow(client)
    agents = " → ".join(agent.name for agent in workflow.steps)
    console.line("=== Workflow Demo ===\n")
    console.line(f"✓ LLM client configured ({where})")
    console.line(f"✓ Created {len(workflow.steps)} agents: {agents}")
    console.line(f"✓ Workflow built with {len(workflow.steps)} sequential steps\n")
    console.line(f"📡 Streaming Agent Responses\n{RULE}\n")
    with Runtime() as runtime:
        runtime.event_stream.subscribe(console)
        handle = runtime.submit(workflow, greeting)
        console.on_closed = handle.cancel  # nobody reads it any more: `python demo.py | head -1`
        return handle.result()


def report(result: WorkflowRun, console: Console) -> None:
    """What the run came to."""
    console.line(f"{RULE}\n✅ Workflow Completed\n\n📊 Final Results\n")
    console.line(f"Steps executed: {len(result.steps)}")
    for number, step in enumerate(result.steps, 1):
        rate = f", {step.tokens_per_second:.1f} tokens/s" if step.tokens_per_second else ""
        tokens = step.usage.completion_tokens
        took = f"{step.duration_s * 1000:.0f}ms, {tokens} tokens{rate}"
        console.line(f"  {number}. {step.name} ({step.kind}) - {took}")


@contextlib.contextmanager
def pick_client(options: argparse.Namespace) -> Iterator[Tuple[ChatClient, str]]:
    """The client that was asked for, else a llama-server that is running, else our own."""
    with contextlib.ExitStack() as stack:
        provider = PROVIDERS[options.provider]
        url, verify = options.base_url, not options.insecure
        if options.provider != "llama":
            where = f"{url or provider.title} - {options.model or provider.model}"
        elif url:
            where = f"{url} - {'llama-server' if verify else 'insecure'}"
        else:
            url, kind = provider.base_url, "llama-server"
            name = find_llama_server(url)
            if name is None:
                with ProgressBar() as progress:
                    server = stack.enter_context(start_server(progress))
                url, name, kind = server.url, server.model, "embedded llama.cpp"
            where = f"{url} - {kind}, {name}"
        client = provider.make(model=options.model, base_url=url, verify=verify)
        yield stack.enter_context(client), where


def main() -> int:
    parser = argparse.ArgumentParser(description="Three agents stream to the terminal.")
    parser.add_argument("greeting", nargs="?", default=GREETING, help="what the greeter answers")
    parser.add_argument("--base-url", help="a server of your own")
    parser.add_argument("--insecure", action="store_true", help="do not verify its certificate")
    parser.add_argument(
        "--provider", choices=["llama", "openai", "anthropic", "ollama"], default="llama"
    )
    parser.add_argument("--model", help="of a provider other than llama")
    options = parser.parse_args()
    console = Console()
    try:
        with pick_client(options) as (client, where):
            report(run(client, where, options.greeting, console), console)
    except KeyboardInterrupt:
        console.line("\nStopped.")
        return 130
    except AgentStreamError as error:
        if console.closed:
            return 0
        print(f"demo.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
