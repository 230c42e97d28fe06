"""Values as `json` and YAML readers give them, not checked yet."""

from __future__ import annotations

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
