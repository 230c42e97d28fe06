"""What reading a file would run, found without running it.

`torch.export.load` unpickles parts of an archive with `weights_only=False`, so every part of a
`.pt2` is looked at before it is loaded.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from ..core.errors import UnsafePickle

PROTOCOL_PICKLES = 3  # before 1.6 torch wrote magic number, protocol and system, each a pickle
# Parts of a .pt2 that hold compiled code or are unpickled without any allow-list.
RUNS_CODE = ("data/aotinductor/", "data/constants/custom_obj_", "data/constants/opaque_obj_")

# torch hands symbolic sizes to sympy, which evaluates them as Python: let sums and calls through,
# no attributes, strings, subscripts or statements.
EXPRESSION = re.compile(r"(?:(?!__)[\w\s+\-*/%(),<>=!&|~]|\d\.|\.\d)*")


def refuse_code(path: Path) -> None:
    """For a file of `torch.save`. Raises UnsafePickle naming what reading it would run."""
    with path.open("rb") as file:
        _refuse(path, _of_zip(path) if zipfile.is_zipfile(path) else _of_legacy(file))


def refuse_code_in_program(path: Path) -> None:
    """For a `.pt2`. Raises UnsafePickle naming what loading it would run."""
    found: list[str] = []
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found += [n for n in names if any(part in n for part in RUNS_CODE)]
        for name in names:
            if not name.endswith(("/", ".json")) or name.startswith("serialized_"):
                found += _of_part(archive.read(name))
            if name.endswith(".json"):
                found += _of_json(archive.read(name))
        if len(set(names)) != len(names):
            found.append("parts of the same name")  # which one torch would take is not ours to say
    _refuse(path, found)


def _refuse(path: Path, found: list[str]) -> None:
    listed = sorted(set(found))
    if listed:
        shown = ", ".join(f"`{name}`" for name in listed[:8])
        more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
        raise UnsafePickle(
            f"`{path}` would run code when read: {shown}{more}; pass `--trust-pickle` only if you "
            "trust its source, or save its `state_dict()` instead."
        )


def _of_zip(path: Path | IO[bytes]) -> list[str]:
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))  # type: ignore[arg-type]
    except Exception:
        return []  # Damaged: loading with `weights_only` refuses it by itself.


def _of_legacy(file: IO[bytes]) -> list[str]:
    """Imports of the object pickle of a legacy file that are not on torch's allow-list."""
    for _ in range(PROTOCOL_PICKLES):
        _imports(file)
    allowed = torch._weights_only_unpickler._get_allowed_globals()
    return [name for name in _imports(file) if name not in allowed]


def _of_part(content: bytes) -> list[str]:
    """A raw tensor imports nothing; a nested `torch.save` file must pass `weights_only`.

    The restricted unpickler runs the same opcodes as the full one, so what it accepts imports
    nothing beyond its allow-list in the full one either.
    """
    if not content.startswith(b"PK\x03\x04"):
        legacy_tar = content[257:262] == b"ustar"
        return [*_imports(io.BytesIO(content)), *(["a tar archive"] if legacy_tar else [])]
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception:
        return _of_zip(io.BytesIO(content)) or ["a pickle that torch does not allow"]
    return []


def _of_json(content: bytes) -> list[str]:
    """Symbolic expressions that are more than arithmetic."""
    found: list[str] = []

    def look(item: dict[str, Any]) -> dict[str, Any]:
        text = item.get("expr_str", "")
        if not isinstance(text, str) or not EXPRESSION.fullmatch(text):
            found.append(f"the expression {str(text)[:60]}")
        return item

    try:
        json.loads(content, object_hook=look)
    except (ValueError, RecursionError):
        pass  # Not JSON: loading says so.
    return found


def _imports(file: IO[bytes]) -> list[str]:
    """`module.name` of every import up to the end of one pickle, or to where it stops being one."""
    found: list[str] = []
    texts: list[str] = []
    try:
        for code, value, _ in pickletools.genops(file):
            if code.name in ("GLOBAL", "INST"):
                found.append(str(value).replace(" ", "."))
            elif code.name == "STACK_GLOBAL":
                found.append(".".join(texts[-2:]))
            elif code.name.startswith("EXT"):
                found.append(f"extension {value}")
            elif isinstance(value, str):
                texts.append(value)
    except (ValueError, pickle.UnpicklingError, UnicodeError, OverflowError, MemoryError):
        pass
    return found
