"""A callback in a thread of its own: a slow one costs the model nothing."""

from agentstream import Agent, EventType, LlamaClient, Runtime

words = []


def remember(event):
    words.append(event.data["chunk"])


client = LlamaClient("http://127.0.0.1:8080")
with Runtime() as runtime:
    runtime.event_stream.subscribe(remember, types=[EventType.AGENT_LLM_STREAM_CHUNK])
    runtime.run(Agent("poet", client=client), "A limerick, please.")
# Leaving the block has delivered all of them.
print(len(words), "chunks:", "".join(words))
client.close()
