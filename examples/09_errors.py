"""What broke, whether it is worth another try, and what had arrived."""

from agentstream import AgentStreamError, LlamaClient, RateLimited, Retries, StreamTruncated

with LlamaClient("http://127.0.0.1:8080", retries=Retries(2)) as client:
    try:
        print(client.chat("Tell me a long story.").text)
    except RateLimited as error:
        print(f"busy; try again in {error.retry_after} s")
    except StreamTruncated as error:
        print(f"the connection broke after: {error.partial.content}")
    except AgentStreamError as error:
        print(f"{type(error).__name__}: {error} (worth another try: {error.retryable})")
