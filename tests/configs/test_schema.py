from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from modelspeed.configs.schema import json_schema
from modelspeed.configs.setting_rows import setting_rows
from modelspeed.configs.settings import SETTINGS

DOCS = Path(__file__).parents[2] / "docs" / "recipe.schema.json"


def test_the_schema_in_docs_is_the_generated_one() -> None:
    assert json.loads(DOCS.read_text(encoding="utf-8")) == json_schema()


def test_a_step_is_one_of_a_name_or_a_name_with_settings() -> None:
    bare, *mapped = json_schema()["$defs"]["step"]["oneOf"]
    assert set(bare["enum"]) == set(SETTINGS) - {"scale"}
    assert [m["required"] for m in mapped] == [[name] for name in SETTINGS]
    assert all(m["additionalProperties"] is False for m in mapped)


def test_where_a_recipe_came_from_is_no_key_of_the_schema() -> None:
    assert {"base", "source"}.isdisjoint(json_schema()["properties"])


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    found = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert found == set(schema["$defs"])


def test_every_setting_and_adjuster_is_described() -> None:
    for name, model in SETTINGS.items():
        assert model.__doc__ and all(row.description for row in setting_rows(name))


def test_configs_do_not_import_torch() -> None:
    rooms = "load, machine, order, inputs, discovery, schema, presets"
    code = f"import sys; from modelspeed.configs import {rooms}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
