"""For cron: a deadline, a clean end on SIGTERM, an exit code that tells."""

import sys

from agentstream import (
    Agent,
    Cancelled,
    LlamaClient,
    Runtime,
    Timeouts,
    WorkflowFailed,
    exit_on_sigterm,
)

exit_on_sigterm()
client = LlamaClient("http://127.0.0.1:8080", timeouts=Timeouts(total=600))
writer = Agent("digest", client=client, system_prompt="Summarize in three sentences.")
with Runtime() as runtime:
    try:
        run = runtime.run(writer, sys.stdin.read())
    except (WorkflowFailed, Cancelled) as error:
        print(f"digest: {error}", file=sys.stderr)
        sys.exit(1)
print(run.output)
client.close()
