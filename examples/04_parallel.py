"""Two agents side by side, and a function that makes one text of theirs."""

from agentstream import Agent, LlamaClient, Parallel, Runtime, Workflow

client = LlamaClient("http://127.0.0.1:8080")


def together(results):
    return "\n".join(f"{name}: {text}" for name, text in results.items())


workflow = Workflow(
    "both sides",
    [
        Parallel(
            pro=Agent("pro", client=client, system_prompt="Argue for it in one sentence."),
            contra=Agent("contra", client=client, system_prompt="Argue against it."),
        ),
        together,
    ],
)
with Runtime() as runtime:
    print(runtime.run(workflow, "Cars should be banned from city centres.").output)
client.close()
