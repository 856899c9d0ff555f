"""OpenAI's Responses API, and that of all who serve it: what is sent, what comes back."""
