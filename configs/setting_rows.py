"""Settings and facts of adjusters as `modelspeed list` shows them."""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Facts
from .settings import SETTINGS


@dataclass(frozen=True)
class SettingRow:
    """One setting as `modelspeed list` shows it; `default` is None where one must be given."""

    name: str
    default: str | None
    description: str


FACTS = ("adjuster", "lossless", "trains", "needs data", "number format", "the search chooses")


def fact_rows() -> tuple[tuple[str, ...], ...]:
    """Facts of each adjuster, one row each, in the columns of `FACTS`."""
    return tuple((name, *_facts(model.facts)) for name, model in SETTINGS.items())


def _facts(facts: Facts) -> tuple[str, ...]:
    number_format = "needs float32" if facts.needs_float else "any"
    return (
        "yes" if facts.lossless else "no",
        "yes" if facts.is_training else "no",
        facts.needs_data,
        "changes it" if facts.changes_format else number_format,
        facts.searched,
    )


def setting_rows(adjuster: str) -> tuple[SettingRow, ...]:
    return tuple(
        SettingRow(
            name,
            None if f.is_required() else str(f.get_default(call_default_factory=True)),
            f.description or "",
        )
        for name, f in SETTINGS[adjuster].model_fields.items()
    )
