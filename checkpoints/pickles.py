"""The code that unpickling a file would run, found without running it."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import IO

import torch

from ..core.errors import UnsafePickle
from .stand_ins import stand_in_for

PROTOCOL_PICKLES = 3  # before 1.6 torch wrote magic number, protocol and system, each a pickle


def load_inert(path: Path) -> object:
    """The objects that `torch.save` wrote, read without running any code of the file.

    Settings that training programs put beside the weights become stand-ins that do nothing; their
    classes are not imported. Raises UnsafePickle naming what else reading would run.
    """
    with path.open("rb") as file:
        imports = _of_zip(path) if zipfile.is_zipfile(path) else _of_legacy(file)
    known = {name: stand_in for name in imports if (stand_in := stand_in_for(name)) is not None}
    refuse(path, [name for name in imports if name not in known])
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in known.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def refuse(path: Path, imports: list[str]) -> None:
    """Raises UnsafePickle that lists `imports`, where there is any."""
    listed = sorted(set(imports))
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


def imports_of_part(content: bytes) -> list[str]:
    """The code that a pickled part of a `.pt2` would run: it must pass `weights_only`.

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


def _imports(file: IO[bytes]) -> list[str]:
    """`module.name` of every import up to the end of one pickle, or to where it stops being one."""
    imports: list[str] = []
    texts: list[str] = []
    try:
        for code, value, _ in pickletools.genops(file):
            if code.name in ("GLOBAL", "INST"):
                imports.append(str(value).replace(" ", "."))
            elif code.name == "STACK_GLOBAL":
                imports.append(".".join(texts[-2:]))
            elif code.name.startswith("EXT"):
                imports.append(f"extension {value}")
            elif isinstance(value, str):
                texts.append(value)
    except (ValueError, pickle.UnpicklingError, UnicodeError, OverflowError, MemoryError):
        pass
    return imports
