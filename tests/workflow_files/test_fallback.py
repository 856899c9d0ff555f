"""A file's client that is made of others of it."""

from __future__ import annotations

from typing import Any

import pytest

from agentstream import ConfigError, FallbackClient, RateLimited, Runtime, ServerError
from agentstream.testing import ScriptedServer
from agentstream.workflow_files import load_workflow

FILE = """
    [clients.cloud]
    base_url = {cloud!r}
    retries = {{attempts = 0}}
    [clients.local]
    base_url = {local!r}
    [clients.steady]
    fallback = ["cloud", "local"]
    {more}
    [agents.a]
    {agent}
    [[steps]]
    agent = "a"
"""


def file_of(cloud: str = "http://h:1", local: str = "http://h:2", more: str = "", agent: str = ""):
    return FILE.format(cloud=cloud, local=local, more=more, agent=agent)


def test_the_next_client_of_the_list_is_asked_and_the_event_says_so(write: Any) -> None:
    with ScriptedServer() as cloud, ScriptedServer() as local, Runtime() as runtime:
        cloud.reply_json({}, status=503)
        local.reply_text("hi")
        file = load_workflow(write(file_of(cloud.url, local.url)))
        assert file.warnings == ()
        with file.build(environ={}) as workflow:
            handle = runtime.submit(workflow, "x")
            assert handle.result(20).output == "hi"
            kinds = [event.type.value for event in runtime.event_stream.store.read(
                workflow_id=handle.workflow_id, after=0, limit=100)]  # fmt: skip
    assert "agent_fallback" in kinds
    assert (len(cloud.requests), len(local.requests)) == (1, 1)


def test_its_settings_and_what_check_says_of_it(write: Any) -> None:
    more = 'pause = "2s"\n    max_pause = 9\n    total = "1m"\n    patience = false\n    on = ["RateLimited", "ServerError"]'
    file = load_workflow(write(file_of(more=more, agent='client = "steady"')))
    assert "steady: asks cloud, then local; " in file.describe()
    with file.build(environ={}) as workflow:
        client = workflow.steps[0].what.client
        assert isinstance(client, FallbackClient)
        assert (client.on, client.total) == ((RateLimited, ServerError), 60.0)
        assert client.patience is None
        assert [one.model for one in client.clients] == ["default", "default"]


def test_an_agent_without_a_client_has_the_only_one_that_no_other_is_made_of(write: Any) -> None:
    file = load_workflow(write(file_of()))
    assert file.agents["a"].client == "steady"
    assert file.used_clients() == ("cloud", "local", "steady")


def test_the_variables_of_all_are_needed(write: Any) -> None:
    text = file_of().replace("[clients.local]", '[clients.local]\n    api_key_env = "LOCAL_KEY"')
    file = load_workflow(write(text))
    assert file.environment == ("LOCAL_KEY",)
    with pytest.raises(ConfigError, match="LOCAL_KEY"), file.build(environ={}):
        pass


def test_what_is_wrong_with_a_list_is_said(write: Any) -> None:
    rows = (
        ('fallback = ["cloud", "locl"]', "did you mean 'local'"),
        ('fallback = ["cloud", "cloud"]', "twice"),
        ("fallback = []", "names no client"),
        ('fallback = "cloud"', "must be a list of texts"),
        ('fallback = ["steady", "local"]', "leads back"),
        ('fallback = ["cloud"]\nprovider = "openai"', "belongs to one of the clients"),
        ('fallback = ["cloud"]\non = ["RateLimit"]', "names no error"),
        ('fallback = ["cloud"]\non = ["Cancelled"]', "ends every call"),
        ('fallback = ["cloud"]\npause = -1', "pause"),
        ('fallback = ["cloud"]\npauses = 1', "did you mean 'pause'"),
        ('fallback = ["cloud"]\npatience = "x"', "patience"),
    )
    for line, said in rows:
        text = file_of().replace('fallback = ["cloud", "local"]', line)
        with pytest.raises(ConfigError) as found:
            load_workflow(write(text))
        assert said in str(found.value), line
        assert "[clients.steady]" in str(found.value)


def test_a_ring_of_two_is_refused(write: Any) -> None:
    text = file_of().replace(
        "[agents.a]", '[clients.other]\n    fallback = ["steady"]\n    [agents.a]'
    )
    load_workflow(write(text))  # one within the other
    ring = text.replace('fallback = ["cloud", "local"]', 'fallback = ["cloud", "other"]')
    with pytest.raises(ConfigError, match="leads back"):
        load_workflow(write(ring))


def test_an_agent_may_name_the_clients_itself(write: Any) -> None:
    rows = (
        ('fallback = ["cloud", "local"]', ("cloud", "local")),
        ('client = "cloud"\n    fallback = ["local"]', ("cloud", "local")),
        ('client = "local"', ("local",)),
        ('client = "cloud"\n    fallback = ["steady"]', ("cloud", "steady")),
    )
    for lines, names in rows:
        file = load_workflow(write(file_of(agent=lines)))
        assert file.agents["a"].clients == names
        assert f"client {', then '.join(names)}" in file.describe()
        with file.build(environ={}) as workflow:
            client = workflow.steps[0].what.client
            assert isinstance(client, FallbackClient) is (len(names) > 1)
    text = (
        file_of(agent=rows[0][0])
        + """
    [agents.b]
    fallback = ["cloud", "local"]
    [[steps]]
    agent = "b"
    """
    )
    with load_workflow(write(text)).build(environ={}) as workflow:
        first, second = (step.what.client for step in workflow.steps)
        assert first is second  # they know of each other's failures
    for line, said in (
        ('client = "cloud"\n    fallback = ["cloud"]', "twice"),
        ('fallback = ["clowd"]', "did you mean 'cloud'"),
        ("fallback = []", "names no client"),
        ("fallback = 5", "a list of texts"),
    ):
        with pytest.raises(ConfigError) as found:
            load_workflow(write(file_of(agent=line)))
        assert said in str(found.value)
        assert "[agents.a]" in str(found.value)
