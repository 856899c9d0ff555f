"""Three agents, one after the other; the words of each as they come."""

from agentstream import Agent, LlamaClient, Runtime, Workflow

client = LlamaClient("http://127.0.0.1:8080")
workflow = Workflow(
    "welcome",
    [
        Agent("greeter", client=client, system_prompt="Greet the user warmly."),
        Agent("analyzer", client=client, system_prompt="Describe the tone of the text."),
        Agent("summarizer", client=client, system_prompt="Summarize in one sentence."),
    ],
)
with Runtime() as runtime:
    for event in runtime.stream(workflow, "Hello!"):
        if event.type == "agent_processing":
            print(f"\n{event.data['agent']}: ", end="")
        print(event.data.get("chunk", ""), end="", flush=True)
    print(f"\n{event.type}: {event.data['usage']['completion_tokens']} tokens")
client.close()
