"""Records as JSON text."""

from __future__ import annotations

import json

from ..core.errors import ArtifactError
from ..core.records import Record
from ..core.records_json import from_json, to_json


def dumps(record: Record) -> str:
    return json.dumps(to_json(record), indent=1)


def loads(text: str) -> Record:
    """Inverse of `dumps`. Raises ArtifactError if `text` is not a record."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"the record is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise ArtifactError("the record is nested too deeply to be one.") from error
    return from_json(Record, data)
