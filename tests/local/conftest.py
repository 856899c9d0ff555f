"""Fixtures of these tests: the model's file."""

from __future__ import annotations

import pathlib

import pytest

from agentstream.local import LocalServer


@pytest.fixture
def model_path(llama_server: LocalServer) -> pathlib.Path:
    return llama_server.model_path
