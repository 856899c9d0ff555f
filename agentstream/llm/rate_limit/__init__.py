"""RateLimit: how much may go to a provider within a time, whoever sends it."""
