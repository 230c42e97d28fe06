"""The JSON Schema of a recipe, for editors. `docs/recipe.schema.json` is this, written out."""

from __future__ import annotations

from ..core.json_values import JsonObject
from .base_settings import Settings
from .recipe import Recipe
from .settings import SETTINGS


def json_schema() -> JsonObject:
    schema = Recipe.model_json_schema(ref_template="#/$defs/{model}")
    # `base` and `source` are where a recipe came from, not something to write in it.
    for name, field in Recipe.model_fields.items():
        if field.exclude:
            schema["properties"].pop(name, None)
    defs = schema["$defs"]
    for unused in ("Step", "Settings", "LeftOut"):
        defs.pop(unused, None)
    for name, model in SETTINGS.items():
        defs[name] = model.model_json_schema()
    defs["step"] = {"oneOf": [_bare_names(), *(_with_settings(name) for name in SETTINGS)]}
    schema["properties"]["adjust"] |= {"items": {"$ref": "#/$defs/step"}, "default": []}
    schema["required"] = ["version"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _bare_names() -> JsonObject:
    return {"enum": [name for name, model in SETTINGS.items() if not _needs_settings(model)]}


def _needs_settings(model: type[Settings]) -> bool:
    return any(field.is_required() for field in model.model_fields.values())


def _with_settings(name: str) -> JsonObject:
    settings: JsonObject = {"$ref": f"#/$defs/{name}"}
    if not _needs_settings(SETTINGS[name]):
        # `- prune:` with nothing after it is null to YAML and means the defaults.
        settings = {"anyOf": [settings, {"type": "null"}]}
    return {
        "type": "object",
        "properties": {name: settings},
        "required": [name],
        "additionalProperties": False,
    }
