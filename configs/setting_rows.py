"""Settings of an adjuster as rows for people."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import SETTINGS


@dataclass(frozen=True)
class SettingRow:
    """One setting as `modelspeed list` shows it; `default` is None where one must be given."""

    name: str
    default: str | None
    description: str


def setting_rows(adjuster: str) -> tuple[SettingRow, ...]:
    return tuple(
        SettingRow(
            name,
            None if f.is_required() else str(f.get_default(call_default_factory=True)),
            f.description or "",
        )
        for name, f in SETTINGS[adjuster].model_fields.items()
    )
