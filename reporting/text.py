"""Texts of a record as they may stand in a file or on a terminal: they come from anywhere."""

from __future__ import annotations

# Control characters steer a terminal (ESC begins a sequence); surrogates, which names of files
# with foreign bytes hold, are not characters of UTF-8.
_STRANGE = {c: "�" for c in (*range(9), *range(11, 32), *range(127, 160), *range(0xD800, 0xE000))}


def clean(text: str) -> str:
    """`text` with a mark for what can't be written; line breaks and tabs stay."""
    return text.translate(_STRANGE)
