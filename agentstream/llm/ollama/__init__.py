"""Ollama's own chat API: a line of JSON for each piece of an answer."""
