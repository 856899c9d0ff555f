"""Who hears about it.  Knows nothing of models, agents or workflows."""
