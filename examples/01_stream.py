"""Print an answer as the model writes it."""

from agentstream import LlamaClient

with LlamaClient("http://127.0.0.1:8080") as client:
    stream = client.chat_stream("Why is the sky blue?")
    for text in stream:
        print(text, end="", flush=True)
    print()
    print(stream.response.usage.completion_tokens, "tokens,", stream.response.finish_reason)
