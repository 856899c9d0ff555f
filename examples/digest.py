"""A nightly digest of a folder's files.  Killed and started again, it asks for no file twice."""

import datetime
import pathlib
import sys

from agentstream import Agent, EventStream, LlamaClient, Runtime, SqliteStore

client = LlamaClient("http://127.0.0.1:8080")
summarizer = Agent("summarizer", client=client, system_prompt="Sum the text up in a sentence.")
editor = Agent("editor", client=client, system_prompt="Make one paragraph of these notes.")

day = datetime.date.today()
files = sorted(pathlib.Path(sys.argv[1]).glob("*.txt"))
with Runtime(max_workers=8, event_stream=EventStream(SqliteStore("digest.db"))) as runtime:
    handles = [
        runtime.submit(summarizer, file.read_text(), workflow_id=f"{day}/{file.name}", once=True)
        for file in files
    ]
    notes = [f"{file.name}: {handle.result().text}" for file, handle in zip(files, handles)]
    digest = runtime.run(editor, "\n".join(notes), workflow_id=f"{day}/digest", once=True)
print(digest.text)
