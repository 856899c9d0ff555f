"""Chat completions: the dialect of OpenAI and of everybody who writes as it does."""
