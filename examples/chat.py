"""A chat with history: CHAT_SECRET=... gunicorn -w 4 -k gthread --threads 50 chat:app"""

import os

import flask

from agentstream import Agent, Conversations, EventStream, LlamaClient, Runtime, SqliteStore

app = flask.Flask(__name__)
app.secret_key = os.environ["CHAT_SECRET"]  # signs the cookie: the same for all workers
client = LlamaClient("http://127.0.0.1:8080")
assistant = Agent("assistant", client=client, system_prompt="Answer briefly.")
chats = Conversations("chats.db", max_tokens=8000, keep="all")
runtime = Runtime(max_workers=50, event_stream=EventStream(SqliteStore("runs.db")))
SHOWN = ("agent_llm_stream_chunk", "workflow_failed")  # words, and why there are no more
PAGE = """<!doctype html><title>Chat</title><pre id="said">{{ said }}</pre>
<form id="ask"><input name="text" required><button>Ask</button></form>
<button id="halt">Stop</button><script>ask.onsubmit = async (event) => {
  event.preventDefault()
  const body = new FormData(ask)
  body.append('run', Date.now())
  said.append(`> ${body.get('text')}\\n`)
  ask.reset()
  halt.onclick = () => fetch('stop', {method: 'POST', body})
  const answer = await fetch('ask', {method: 'POST', body})
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) said.append(text)
  said.append('\\n\\n')
}</script>"""


@app.get("/")
def page():
    messages = chats.get(flask.session.setdefault("user", os.urandom(16).hex())).messages
    said = (f"> {m.content}\n" if m.role == "user" else f"{m.content}\n\n" for m in messages)
    return flask.render_template_string(PAGE, said="".join(said))


@app.post("/ask")
def ask():
    user, form = flask.session["user"], flask.request.form
    options = {"workflow_id": f"{user}-{form['run']}", "conversation": chats.get(user)}
    events = runtime.stream(assistant, form["text"], raise_on_failure=False, **options)
    told = (event.data for event in events if event.type in SHOWN)
    words = (data["chunk"] if "chunk" in data else data["message"] for data in told)
    return flask.Response(words, mimetype="text/plain")


@app.post("/stop")
def stop():
    return str(runtime.stop_generation(f"{flask.session['user']}-{flask.request.form['run']}"))
