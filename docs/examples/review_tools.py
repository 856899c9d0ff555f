"""What review.toml calls; plain functions."""

WORDS = 12


def count_words(text: str) -> int:
    """Count the words of a text.

    Args:
        text: the text.
    """
    return len(text.split())


def unchanged(text):
    return text


def is_short(text, context):
    """A condition: true ends the repetition.  `context` is what the steps of a run share."""
    context["words"] = count_words(text)
    return context["words"] <= WORDS
