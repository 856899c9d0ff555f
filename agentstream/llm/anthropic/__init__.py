"""Messages: the dialect of Anthropic, and of everybody who serves it too."""
