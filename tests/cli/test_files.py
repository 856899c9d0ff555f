"""Files that go with a workflow's input: `files` in the file, `agentstream run -a`."""

from __future__ import annotations

from agentstream.testing import text_chunks

FLOW = """
input = "What is it?"
files = ["pictures/a"]
[agents.seer]
[[steps]]
agent = "seer"
prompt = "In a word: {input}"
"""
PNG, PDF = b"\x89PNG\r\n\x1a\n", b"%PDF-1.7"


def test_files_go_with_a_workflows_input(here, cli, server):
    server.default(*text_chunks("A dot."))
    (cli.folder / "flows" / "pictures").mkdir(parents=True)
    flow = cli.write("flows/see.toml", FLOW)
    (cli.folder / "flows" / "pictures" / "a").write_bytes(PNG)
    (cli.folder / "b").write_bytes(PDF)
    assert here("run", flow).out == "A dot.\n"
    assert here("run", flow, "-a", "b", "--input", "And this?").out == "A dot.\n"
    first, second = (request.json["messages"][-1]["content"] for request in server.requests)
    assert [part["type"] for part in first] == ["text", "image_url"]
    assert [part["type"] for part in second] == ["text", "image_url", "file"]
    assert first[0]["text"] == "In a word: What is it?"
    assert second[0]["text"] == "In a word: And this?"
    assert "with a" in here("check", flow).out


def test_a_file_that_is_none_is_told_before_anything_is_sent(here, cli, server):
    flow = cli.write("see.toml", FLOW)
    assert "pictures" in here("run", flow, code=2).err
    flow = cli.write("see.toml", FLOW.replace('["pictures/a"]', "3"))
    assert "files: must be" in here("check", flow, code=2).err
    assert server.requests == []
