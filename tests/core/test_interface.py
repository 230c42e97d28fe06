"""What users build on: names, flags, keys and codes. `python tests/core/test_interface.py` writes
tests/fixtures/interface.json, against which the code is held."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import sys
import tempfile
import typing
from pathlib import Path

import modelspeed
import pytest
import typer
from modelspeed.backends.registry import NAMES
from modelspeed.cli.main import app

# All that is not reached through the package or the command line: names that may move.
from modelspeed.configs.jobs import JobSettings
from modelspeed.configs.presets import preset_names
from modelspeed.configs.schema import json_schema
from modelspeed.core import errors, records
from modelspeed.core import exit_codes as endings
from modelspeed.core.files import CONVERTED
from modelspeed.graph.edits.apply import KINDS
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
STORED = ROOT / "tests" / "fixtures" / "interface.json"
STAGES = re.compile(
    r"""(?:\bjournal\.(?:kept|get|put)|\.remember|\.recall|\.write_down)\(\s*"(\w+)\""""
)
DIGESTS = re.compile(r"""["'](\w+_sha256)["']""")
VARIABLES = re.compile(r"""["'](MODELSPEED_\w+)["']""")


def interface(artifact):
    """All of it as plain JSON; `artifact`: a folder that this code has written."""
    return {
        "python": python(),
        "commands": commands(),
        "exit codes": exit_codes(),
        "environment": found_in_code(VARIABLES),
        "artifact": sorted(path.name for path in artifact.iterdir()),
        "converted": sorted(CONVERTED),
        "manifest": manifest_keys(json.loads((artifact / "modelspeed.json").read_text())),
        "digests": found_in_code(DIGESTS),
        "report.json": sorted(json.loads((artifact / "report.json").read_text())),
        "record": record_keys(),
        "edits": {name: fields_of(kind) for name, kind in sorted(KINDS.items())},
        "runtimes": list(NAMES),
        "recipe": recipe(),
        "batch job": sorted(JobSettings.model_fields),
        "presets": preset_names(),
        "journal stages": found_in_code(STAGES),
    }


def python():
    rows = [
        f"{p.kind.description} {p.name}: {p.annotation}"
        + ("" if p.default is p.empty else f" = {p.default!r}")
        for p in inspect.signature(modelspeed.load).parameters.values()
    ]
    return {"names": sorted(modelspeed.__all__), "load": rows}


def commands():
    group = typer.main.get_command(app)
    verbs = {name: parameters(command) for name, command in sorted(group.commands.items())}
    return {"modelspeed": parameters(group), **verbs}


def parameters(command):
    """Arguments in their order, then flags by name."""
    arguments = [p.name for p in command.params if p.param_type_name == "argument"]
    flags = [name for p in command.params if p.param_type_name == "option"
             for name in (*p.opts, *p.secondary_opts)]  # fmt: skip
    return [*arguments, *sorted(flags)]


def exit_codes():
    raised = {name: kind.exit_code for name, kind in vars(errors).items()
              if isinstance(kind, type) and issubclass(kind, errors.ModelspeedError)}  # fmt: skip
    ended = {**endings.CODES, "accuracy limit": endings.ACCURACY_LIMIT}
    return {"verdicts": dict(sorted(ended.items())), "errors": dict(sorted(raised.items()))}


def manifest_keys(manifest):
    """Nested one level; edits and the record have parts of their own."""
    return {
        name: sorted(value) if isinstance(value, dict) and name != "record" else []
        for name, value in sorted(manifest.items())
    }


def record_keys():
    """By dataclass that a record holds, since a written one leaves lists empty at times."""
    found = {}
    left = [records.Record]
    while left:
        kind = left.pop()
        if dataclasses.is_dataclass(kind) and kind.__name__ not in found:
            found[kind.__name__] = fields_of(kind)
            left += typing.get_type_hints(kind).values()
        left += typing.get_args(kind)
    return dict(sorted(found.items()))


def fields_of(kind):
    return [field.name for field in dataclasses.fields(kind)]


def recipe():
    """By part or step: its settings with their defaults; those without are `required` or made."""
    schema = json_schema()
    parts = {"recipe": schema, **schema["$defs"]}
    return {
        name: {
            key: setting.get("default", "required" if key in part.get("required", ()) else "made")
            for key, setting in sorted(part["properties"].items())
        }
        for name, part in sorted(parts.items())
        if "properties" in part
    }


def found_in_code(pattern):
    """What `pattern` finds in the package's code, wherever it stands there."""
    rooms = (path for path in ROOT.iterdir() if (path / "__init__.py").is_file())
    texts = [path.read_text(encoding="utf-8") for room in rooms for path in room.rglob("*.py")]
    return sorted({name for text in texts for name in pattern.findall(text)})


def written(folder, set_to):
    """A small artifact of this code, pruned by a fixed ratio."""
    import pico
    from quick import hasten

    hasten(set_to)
    checkpoint = pico.project(folder, pico.RECIPE.replace("- prune", "- prune: {ratio: 0.25}"))
    words = ["apply", str(checkpoint), "--config", str(folder / "modelspeed.yaml"), "--threads",
             "1", "--runtime", "lowered", "--trust-code", "--out",
             str(folder / "fast")]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    return folder / "fast"


def current():
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELSPEED_CACHE", f"{folder}/cache")
        return interface(written(Path(folder) / "user", patch.setattr))


def text_of(found):
    return json.dumps(found, indent=1) + "\n"


@pytest.fixture(scope="module")
def found():
    return current()


def test_every_part_is_stored(found):
    assert list(found) == list(json.loads(STORED.read_text(encoding="utf-8")))


@pytest.mark.parametrize("part", json.loads(STORED.read_text()) if STORED.is_file() else [])
def test_it_is_the_stored_one(part, found):
    stored = text_of(json.loads(STORED.read_text(encoding="utf-8"))[part]).splitlines()
    here = text_of(found.get(part)).splitlines()
    if here != stored:
        lines = difflib.unified_diff(stored, here, "stored", "this code", lineterm="")
        pytest.fail(
            "changed on purpose? `python tests/core/test_interface.py` writes it, and CHANGELOG "
            "names it\n" + "\n".join(lines), pytrace=False,
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["float", "int8", "pruned"])
def test_earlier_artifacts_hold_no_key_that_is_gone(kind):
    """Only those written since may hold more; tests/checkpoints/test_earlier_artifacts.py."""
    folder, stored = STORED.parent / "artifacts" / kind, json.loads(STORED.read_text())
    for name, part in (("modelspeed.json", "manifest"), ("report.json", "report.json")):
        assert set(json.loads((folder / name).read_text())) <= set(stored[part])
    for edit in json.loads((folder / "modelspeed.json").read_text())["edits"]:
        assert list(edit) == ["edit", *stored["edits"][edit["edit"]]]


def main():
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    STORED.write_text(text_of(current()), encoding="utf-8")


if __name__ == "__main__":
    main()
