"""The function that digest.toml names."""

import pathlib


def texts(folder):
    """The texts of the folder's files, in the order of their names."""
    return [path.read_text("utf-8") for path in sorted(pathlib.Path(folder).glob("*.txt"))]
