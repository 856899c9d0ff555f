"""Files of a message: what each is, how each dialect sends it, what is refused."""

from __future__ import annotations

import base64
import os
import pathlib
from typing import Any, Dict, List

import pytest

from agentstream import (
    AnthropicClient,
    BadRequest,
    ChatMessage,
    ConfigError,
    Conversation,
    OpenAIClient,
)
from agentstream.llm import files as files_module
from agentstream.testing import messages_chunks, ollama_chunks, text_chunks
from tests.kit.support import client_of
from tests.llm.ollama.kit import ollama_of, play

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 20
GIF = b"GIF89a" + b"\0" * 20
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "
PDF = b"%PDF-1.7\n%\xe2\xe3"


def url_of(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Any:
    def write(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return write


def parts_of(message: ChatMessage) -> List[Dict[str, Any]]:
    assert isinstance(message.content, list)
    return message.content


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (b"GIF87a\0\0", "image/gif"),
        (WEBP, "image/webp"),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.pdf", "noend", "\u00e9 b.txt"])
def test_a_picture_is_what_its_content_says(write, content, kind, name):
    text, image = parts_of(ChatMessage.user("What is it?", files=[write(name, content)]))
    assert text == {"type": "text", "text": "What is it?"}
    assert image == {"type": "image_url", "image_url": {"url": url_of(kind, content)}}


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\r\n"])
def test_a_pdf_has_its_name(write, before):
    path = pathlib.Path(write("b.png", before + PDF))
    (part,) = parts_of(ChatMessage.user("", files=(path,)))
    url = url_of("application/pdf", before + PDF)
    assert part == {"type": "file", "file": {"filename": "b.png", "file_data": url}}


def test_files_come_behind_parts_in_their_order(write):
    given = [{"type": "text", "text": "a"}]
    paths = [write("1", PDF), write("2", PNG)]
    parts = parts_of(ChatMessage.user(given, files=paths))
    assert [part["type"] for part in parts] == ["text", "file", "image_url"]
    assert given == [{"type": "text", "text": "a"}]
    assert ChatMessage.user("a", files=[]) == ChatMessage.user("a")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"Just words, %PDF- among them", "is no picture"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "is no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture"),
        (b"\x89PN", "is no picture"),
    ],
)
def test_of_another_kind(write, content, why):
    with pytest.raises(ConfigError, match=f"a.png {why}") as caught:
        ChatMessage.user("a", files=[write("a.png", content)])
    assert caught.value.setting == "files"


def test_what_cannot_be_read(tmp_path):
    for name, why in (
        (str(tmp_path / "none.png"), "none.png cannot be read"),
        (str(tmp_path), "is no file"),
        ("a\0b", "cannot be read"),
        ("a\x1b[2Jb", r"x1b\[2Jb' cannot be read"),
    ):
        with pytest.raises(ConfigError, match=why):
            ChatMessage.user("a", files=[name])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p")
    with pytest.raises(ConfigError, match="p is no file"):
        ChatMessage.user("a", files=[tmp_path / "p"])


@pytest.mark.parametrize("given", ["a.png", pathlib.Path("a.png"), b"a.png", 3, {"a.png": 1}, [3]])
def test_what_are_no_paths(given):
    with pytest.raises(ConfigError, match="files must be a list of paths"):
        ChatMessage.user("a", files=given)


def test_too_large(write, monkeypatch):
    monkeypatch.setattr(files_module, "LARGEST", 2**20)
    whole = PNG.ljust(2**20, b"\0")
    assert len(parts_of(ChatMessage.user("a", files=[write("a", whole)]))) == 2
    with pytest.raises(ConfigError, match="a is larger than 1 MiB"):
        ChatMessage.user("a", files=[write("a", whole + b"\0")])


# --- on the wire ----------------------------------------------------------------------------


def test_chat_completions_take_the_parts_as_they_are(server, write):
    message = ChatMessage.user("a", files=[write("a", PNG), write("b.pdf", PDF)])
    server.reply(*text_chunks("ok"))
    with client_of(server) as client:
        client.chat([message])
    assert server.requests[0].json["messages"] == [{"role": "user", "content": message.content}]


def test_messages_take_blocks(server, write):
    message = ChatMessage.user("a", files=[write("a", PNG), write("b.pdf", PDF)])
    server.reply(*messages_chunks("ok"))
    with AnthropicClient("m", api_key="k", base_url=server.url) as client:
        client.chat([message])
    _, image, document = server.requests[0].json["messages"][0]["content"]
    assert image["type"] == "image" and image["source"]["media_type"] == "image/png"
    assert document["type"] == "document" and document["title"] == "b.pdf"
    assert base64.b64decode(document["source"]["data"]) == PDF


def test_ollama_takes_pictures_and_no_pdf(server, write):
    picture = ChatMessage.user("a", files=[write("a", PNG), write("b", WEBP)])
    play(server, *ollama_chunks("ok"))
    with ollama_of(server) as client:
        client.chat([picture])
        (sent,) = server.requests[0].json["messages"]
        assert [base64.b64decode(image) for image in sent["images"]] == [PNG, WEBP]
        with pytest.raises(ConfigError, match="no files but pictures"):
            client.chat([ChatMessage.user("a", files=[write("b", PDF)])])
    assert len(server.requests) == 1


def test_a_conversation_keeps_them(write, tmp_path):
    conversation = Conversation([ChatMessage.user("a", files=[write("a", PNG)])])
    conversation.save(tmp_path / "c.json")
    (message,) = Conversation.load(tmp_path / "c.json").messages
    assert message == conversation.messages[0]


def test_responses_take_items(server, write):
    message = ChatMessage.user("a", files=[write("a", PNG), write("b.pdf", PDF)])
    server.reply_json({"error": {"message": "seen"}}, status=400)
    with OpenAIClient("m", api="responses", api_key="k", base_url=server.url) as client:
        with pytest.raises(BadRequest, match="seen"):
            client.chat([message])
    text, image, document = server.requests[0].json["input"][0]["content"]
    assert text == {"type": "input_text", "text": "a"}
    assert (image["type"], image["image_url"]) == ("input_image", url_of("image/png", PNG))
    assert (document["type"], document["filename"]) == ("input_file", "b.pdf")
    assert document["file_data"] == url_of("application/pdf", PDF)
