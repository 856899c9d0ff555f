"""What an agent of a file answers with: a JSON schema, a file that holds one, or an import path."""

from __future__ import annotations

import os
from typing import Any, Optional

from agentstream.errors import ConfigError
from agentstream.schema.output import Output, as_output
from agentstream.workflow_files.importing import Importer
from agentstream.workflow_files.problems import TEXT_OR_TABLE, Table, check_import
from agentstream.workflow_files.reading import read_json

__all__ = ["find_output", "read_output"]


def read_output(table: Table, folder: str) -> Any:
    """An agent's `output`: a JSON schema, "module:name", or None.

    Args:
        table: the agent's.
        folder: where the path of a schema begins.
    """
    given = table.get("output", TEXT_OR_TABLE)
    if given is None:
        return None
    if isinstance(given, str) and not given.endswith(".json"):
        return given if check_import(table, "output", given) else None
    try:
        schema = read_json(os.path.join(folder, given)) if isinstance(given, str) else given
        as_output(schema)
    except ConfigError as error:
        table.refuse("output", error.reason)
        return None
    if "response_format" in table.values:
        table.refuse("output", "says with response_format what the answer looks like: give one")
    return schema


def find_output(importer: Importer, source: Optional[str]) -> Output:
    """The type that an import path names.

    Raises:
        ConfigError: it is not there, or is no type that can be asked for.
    """
    return as_output(importer.find_any(str(source)))
