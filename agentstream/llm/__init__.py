"""Talking to a model.  Knows nothing of events, agents or workflows."""
