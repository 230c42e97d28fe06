"""The forms that texts of a `.pt2` may have: whatever is not of its form is refused.

Names end up in the source of the `forward` that torch generates, some of them within quotes.
"""

from __future__ import annotations

import keyword
import re
import unicodedata

LONGEST = 1000  # characters of a name
RESERVED = {"self", "torch", "pytree", "fx_pytree"}  # what the generated source itself refers to
DUNDER = re.compile(r"__\w*")
# No quote, backslash or control character: torch writes `getattr(self, "conv 1x1")` and `x['a/b']`.
SEGMENT = re.compile(r"[\w \-/+:,@]+")
KEY = re.compile(r"[\w \-./:+,()@<>=#%&*\[\]|]*")
VERSION = re.compile(r"[\w.+<>= -]*")
TYPE = re.compile(r"[\w.<>@]+")
PAYLOAD = re.compile(r"(?:weight|tensor)_[0-9]{1,9}")
# Numbers of at most six digits: torch counts up to those of unbacked symbols.
SYMBOL = re.compile(r"(?:s|u|zf|zuf|ps)[0-9]{1,6}")


def is_name(text: str) -> bool:
    """An identifier that stays the one it is when Python reads it, and not a word of Python's."""
    return (
        text.isidentifier()
        and len(text) <= LONGEST
        and not keyword.iskeyword(text)
        and text not in RESERVED
        and not DUNDER.fullmatch(text)
        and (text.isascii() or unicodedata.normalize("NFKC", text) == text)
    )


def is_argument(text: str) -> bool:
    """Of an operator's own: empty, or a name; `self` and `from` are some in torch."""
    return text in ("", "self", "from") or is_name(text)


def is_path(text: str) -> bool:
    """Where a module or a weight is: `layers.conv 1x1.weight`; empty for the model itself."""
    parts = text.split(".") if text else []
    return len(text) <= LONGEST and all(
        SEGMENT.fullmatch(part) and not DUNDER.fullmatch(part) for part in parts
    )


def is_key(text: str) -> bool:
    return len(text) <= LONGEST and KEY.fullmatch(text) is not None


def is_type(text: str) -> bool:
    return len(text) <= LONGEST and TYPE.fullmatch(text) is not None


def is_symbol(text: str) -> bool:
    return SYMBOL.fullmatch(text) is not None
