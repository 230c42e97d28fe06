from __future__ import annotations

import json as json_text
import sys
from dataclasses import asdict

from . import options as o


def list_all(json: o.JsonOption = False) -> None:
    """Show adjusters with their settings, and presets."""
    from rich.console import Console

    from ..configs.presets import preset_names, read_preset
    from ..configs.setting_rows import FACTS, fact_rows, setting_rows
    from ..configs.settings import SETTINGS
    from ..reporting.console import print_table
    from ..reporting.facts import Table

    rows = [
        (name, row.name, row.default or "(needed)", row.description)
        for name in SETTINGS
        for row in setting_rows(name) or ()
    ]
    bare = [(n, "", "", (SETTINGS[n].__doc__ or "").splitlines()[0]) for n in SETTINGS]
    presets = [(n, _first_comment(read_preset(n))) for n in preset_names()]
    if json:
        schema = {n: m.model_json_schema() for n, m in SETTINGS.items()}
        facts = {n: asdict(m.facts) for n, m in SETTINGS.items()}
        answer = {"adjusters": schema, "facts": facts, "presets": dict(presets)}
        sys.stdout.write(json_text.dumps(answer) + "\n")
        return
    head = ("adjuster", "setting", "default", "what it does")
    print_table(Table("Adjusters", head, tuple(sorted(bare + rows))), Console())
    print_table(Table("What holds for each", FACTS, fact_rows()), Console())
    print_table(Table("Presets", ("preset", "what it does"), tuple(presets)), Console())


def _first_comment(text: str) -> str:
    return next((t.lstrip("# ") for t in text.splitlines() if t.startswith("#")), "")
