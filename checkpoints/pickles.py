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
from .inert import stand_in_for

PROTOCOL_PICKLES = 3  # before 1.6 torch wrote magic number, protocol and system, each a pickle
# Parts of a .pt2 that hold compiled code or are unpickled without any allow-list.
RUNS_CODE = ("data/aotinductor/", "data/constants/custom_obj_", "data/constants/opaque_obj_")

# torch hands symbolic sizes to sympy, which evaluates them as Python. Let through arithmetic, and
# calls of classes that only hold their arguments (`Symbol('s0', integer=True)`).
NAMES = (
    r"s\d+|u\d+|zf\d+|True|False|None|true|false|oo|int_oo|positive|integer|nonnegative|precision|"
    r"Symbol|Integer|Rational|Float|Add|Mul|Pow|Mod|Max|Min|Abs|Not|And|Or|Eq|Ne|Lt|Le|Gt|Ge|"
    r"Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|FloorDiv|"
    r"CleanDiv|CeilDiv|PythonMod|ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|FloatPow|PowByNatural|"
    r"ToFloat|TruncToInt|TruncToFloat|CeilToInt|FloorToInt|RoundToInt|RoundDecimal|Identity"
)
EXPRESSION = re.compile(
    rf"(?:\b(?:{NAMES})\b|'[a-z]*\d+(?:\.\d+)?'|\d+\.?\d*|[\s+\-*/%(),<>=!&|~])*"
)


def load_inert(path: Path) -> Any:
    """What `torch.save` wrote, read without running any of it.

    Settings that training programs put beside the weights become stand-ins that do nothing; their
    classes are not imported. Raises UnsafePickle naming what else reading would run.
    """
    with path.open("rb") as file:
        found = _of_zip(path) if zipfile.is_zipfile(path) else _of_legacy(file)
    known = {name: stand_in for name in found if (stand_in := stand_in_for(name)) is not None}
    _refuse(path, [name for name in found if name not in known])
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in known.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def refuse_code_in_program(path: Path) -> None:
    """For a `.pt2`. Raises UnsafePickle naming what loading it would run."""
    found: list[str] = []
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found += [n for n in names if any(part in n for part in RUNS_CODE)]
        pickled: list[str] = []
        for name in names:
            if name.endswith(".json"):
                found += _of_json(archive.read(name), pickled)
        for name in names:
            content = archive.read(name)
            if content.startswith(b"PK\x03\x04") or _unpickled(name, pickled):
                found += _of_part(content)
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
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []  # Damaged: loading with `weights_only` refuses it by itself.


def _of_legacy(file: IO[bytes]) -> list[str]:
    """Imports of the object pickle of a legacy file that are not on torch's allow-list."""
    for _ in range(PROTOCOL_PICKLES):
        _imports(file)
    allowed = torch._weights_only_unpickler._get_allowed_globals()
    return [name for name in _imports(file) if name not in allowed]


def _unpickled(name: str, pickled: list[str]) -> bool:
    """Does torch unpickle this part? The parts in `pickled` are what the archive's JSON says."""
    own = name.endswith(".pt") or (name.startswith("serialized_") and "program" not in name)
    return own or any(name.lower().endswith(p) for p in pickled)


def _of_part(content: bytes) -> list[str]:
    """A part must pass `weights_only`.

    The restricted unpickler runs the same opcodes as the full one, so what it accepts imports
    nothing beyond its allow-list in the full one either. Scanning opcodes alone can be deceived.
    """
    if not content:
        return []
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception:
        if content.startswith(b"PK"):
            return _of_zip(io.BytesIO(content)) or ["a pickle that torch does not allow"]
        return _of_legacy(io.BytesIO(content)) or ["a pickle that torch does not allow"]
    return []


def _of_json(content: bytes, pickled: list[str]) -> list[str]:
    """Expressions that are more than arithmetic; names of pickled parts go into `pickled`."""
    found: list[str] = []

    def look(item: dict[str, Any]) -> dict[str, Any]:
        text = item.get("expr_str", "")
        if not isinstance(text, str) or not EXPRESSION.fullmatch(text):
            found.append(f"the expression {str(text)[:60]}")
        if item.get("use_pickle"):
            pickled.append(str(item.get("path_name")).lower().rpartition("/")[2])
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
