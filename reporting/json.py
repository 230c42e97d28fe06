"""Records as JSON text."""

from __future__ import annotations

import json

from ..core.errors import ArtifactError
from ..core.records import Record, from_json, to_json


def dumps(record: Record) -> str:
    return json.dumps(to_json(record), indent=1)


def loads(text: str) -> Record:
    """Inverse of `dumps`. Raises ArtifactError where `text` is no record."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"the record is no valid JSON: {error}.") from error
    return from_json(Record, data)
