"""`FILE.py:NAME`: a function of the user's, imported under a private module name."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..core.errors import DataError, UsageError

_LOADED: dict[Path, ModuleType] = {}


def load_factory(spec: str, base: Path) -> Callable[..., Any]:
    """The callable `NAME` of `FILE.py`, relative to `base`.

    Raises UsageError where file or name is missing, DataError where the user's code fails.
    """
    file, _, name = spec.rpartition(":")
    path = (base / file).resolve()
    if not file or not path.is_file():
        raise UsageError(f"`{spec}`: there is no file `{path}`; write it as `FILE.py:NAME`.")
    module = _LOADED.get(path) or _import(path)
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n in vars(module) if not n.startswith("_")]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean `{near[0]}`?" if near else "."
        raise UsageError(f"`{path.name}` has no function `{name}`{hint}")

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return found(*args, **kwargs)
        except Exception as error:
            raise DataError(_in_user_code(spec, path, error)) from error

    return call


def _import(path: Path) -> ModuleType:
    name = f"_modelspeed_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Pickled classes and dataclasses look their module up by name while it loads.
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise DataError(_in_user_code(str(path), path, error)) from error
    finally:
        sys.path.remove(str(path.parent))
    _LOADED[path] = module
    return module


def _in_user_code(spec: str, path: Path, error: Exception) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    place = f" at {path.name}:{frames[-1].lineno}" if frames else ""
    return f"`{spec}` failed{place}: {type(error).__name__}: {error}"
