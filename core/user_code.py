"""`FILE.py:NAME`: a function of the user's, imported under a private module name."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import DataError, ModelspeedError, UsageError

_LOADED: dict[Path, ModuleType] = {}


def load_factory(spec: str, base: Path) -> Callable[..., Any]:
    """The callable `NAME` of `FILE.py`, relative to `base`.

    Raises UsageError where file or name is missing, DataError where the user's code fails.
    """
    file, _, name = spec.rpartition(":")
    if not file.endswith(".py") or not name:
        raise UsageError(f"`{spec}` is not a factory; write it as `FILE.py:NAME`.")
    path = (base / file).resolve()
    if not path.is_file():
        raise UsageError(f"`{spec}`: there is no file `{path}`.")
    module = _LOADED.get(path) or _import(path)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise UsageError(f"`{path.name}` has no function `{name}`; {_nearest(name, module)}.")

    def call(*args: object, **kwargs: object) -> object:
        try:
            return factory(*args, **kwargs)
        except ModelspeedError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(_in_user_code(spec, path, error)) from error

    return call


def import_all(names: Sequence[str]) -> None:
    """Import what the user's `--import` names: an installed module, or a Python file.

    Raises UsageError where there is none, DataError where its code fails.
    """
    for name in names:
        if name.endswith(".py"):
            path = Path(name).absolute()
            if not path.is_file():
                raise UsageError(f"`--import {name}`: there is no file `{path}`.")
            if path.resolve() not in _LOADED:
                _import(path.resolve())
            continue
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"`--import` is `{name}`; name a module, or a file as `FILE.py`.")
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name in _above(name):
                raise UsageError(f"`--import {name}`: there is no such module here.") from error
            text = f"`--import {name}` failed: {type(error).__name__}: {error}"
            raise DataError(text) from error


def _above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def _nearest(name: str, module: ModuleType) -> str:
    names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
    near = difflib.get_close_matches(name, names, 3) or names[:3]
    return f"it has {', '.join(f'`{n}`' for n in near)}" if near else "it has none at all"


def _import(path: Path) -> ModuleType:
    name = f"_modelspeed_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"`{path}` can't be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    # Pickled classes and dataclasses look their module up by name while it loads.
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a main guard may exit
        sys.modules.pop(name, None)
        raise DataError(_in_user_code(str(path), path, error)) from error
    finally:
        with suppress(ValueError):  # the user's code may have changed it
            sys.path.remove(str(path.parent))
    _LOADED[path] = module
    return module


def _in_user_code(spec: str, path: Path, error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)  # SyntaxError has none
    place = f" at {path.name}:{line}" if line else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"`{spec}` failed{place}: {type(error).__name__}: {text}"
