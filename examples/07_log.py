"""Runs whose events outlive the process."""

from agentstream import Agent, EventStream, LlamaClient, Runtime, SqliteStore, Workflow

client = LlamaClient("http://127.0.0.1:8080")
workflow = Workflow("report", [Agent("writer", client=client)])
with Runtime(event_stream=EventStream(SqliteStore("runs.db"))) as runtime:
    run = runtime.run(workflow, "Write a haiku about threads.")

with EventStream(SqliteStore("runs.db")) as log:
    for event in log.subscribe(workflow_id=run.workflow_id, after=0):
        print(event.offset, event.type, event.data.get("chunk", ""))
client.close()
