"""Recipe files: read with every problem at once, and write so that reading gives the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..core.errors import ConfigError
from .recipe import Recipe, Step
from .sentences import as_text, nearest, place, sentence, tick, unknown_key
from .settings import SETTINGS
from .yaml_tree import MAX_BYTES, RULES, Tree, read_tree

M = TypeVar("M", bound=BaseModel)
_TOP = [name for name, f in Recipe.model_fields.items() if not f.exclude]


def load_recipe(path: Path) -> Recipe:
    """The recipe in a file; its factories are relative to the file's folder.

    Raises ConfigError with every problem of the file."""
    return parse_recipe(text_of(path), path.name, path.parent)


def text_of(path: Path) -> str:
    """A short UTF-8 text. Raises ConfigError where the file is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError([f"`{path}` can't be read: {reason}."]) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError([f"`{path}` is larger than {MAX_BYTES} bytes; a recipe is a short text."])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"`{path}` is not UTF-8 text (byte {error.start}); save it as UTF-8."
        raise ConfigError([problem]) from error


def parse_recipe(text: str, name: str, base: Path) -> Recipe:
    """The recipe in `text`; `name` is what errors call it, `base` where its factories are."""
    tree = read_tree(text, name)
    problems = list(tree.problems)
    steps = _steps(tree, problems)
    rest = {k: v for k, v in tree.value.items() if k in _TOP and k != "adjust"}
    for key in tree.value:
        if key not in _TOP:
            problems.append((tree.line((key,)), unknown_key((key,), _TOP)))
    if "version" not in tree.value:
        problems.append((1, "`version` is missing; write `version: 1`."))
    recipe = validate(Recipe, rest, (), tree, problems)
    if problems or recipe is None:
        # One problem may be met on two ways (a refused tag leaves a null behind it).
        unique = dict.fromkeys(sorted(problems))
        raise ConfigError([f"`{name}:{line}`: {text}" for line, text in unique])
    return recipe.model_copy(update={"adjust": steps, "base": base, "source": name})


def _steps(tree: Tree, problems: list[tuple[int, str]]) -> tuple[Step, ...]:
    raw = tree.value.get("adjust", [])
    if not isinstance(raw, list):
        text = (
            f"`adjust` is {as_text(raw)}; it must be a list of steps, such as `- fold_batchnorm`."
        )
        problems.append((tree.line(("adjust",)), text))
        return ()
    steps = (_step(tree, i, item, problems) for i, item in enumerate(raw))
    return tuple(step for step in steps if step is not None)


def _step(tree: Tree, index: int, item: object, problems: list[tuple[int, str]]) -> Step | None:
    path = ("adjust", index)
    line = tree.line(path)
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, dict) or len(item) != 1:
        shown = f"a mapping of {len(item)} keys" if isinstance(item, dict) else as_text(item)
        text = f"{place(path)} is {shown}; it must be a name or one `name: {{settings}}`."
        problems.append((line, text))
        return None
    name, settings = next(iter(item.items()))
    if name not in SETTINGS:
        text = f"{place(path)} is the unknown adjuster {tick(name)}; {nearest(name, SETTINGS)}"
        problems.append((line, text))
        return None
    # `- prune:` with nothing after it reads as null and means the defaults.
    values = {} if settings is None else settings
    checked = validate(SETTINGS[name], values, (*path, name), tree, problems)
    return None if checked is None else Step(name=name, settings=checked)


def validate(
    model: type[M],
    value: object,
    prefix: tuple[str | int, ...],
    tree: Tree,
    problems: list[tuple[int, str]],
) -> M | None:
    """`value` as a `model`, or None with its problems added as (line, sentence)."""
    try:
        # By way of JSON, because strict mode takes a list for a tuple only there.
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path, text = sentence(model, item, prefix)
            problems.append((tree.line(path), text))
    return None


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


for _name, _pattern, _first in RULES:
    # What our reader takes for a number must be quoted when it is text.
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, _first)


def dump_recipe(recipe: Recipe) -> str:
    """YAML with every default written out, so that a later version's defaults change nothing."""
    # Steps that could not run were asked for: with data the same file runs them.
    whole = recipe.model_copy(update={"adjust": tuple(step for step, _ in recipe.every_step())})
    # Escaped: PyYAML writes some characters (U+0085) raw that it does not read back.
    return yaml.dump(_plain(whole), Dumper=_Dumper, sort_keys=False, width=100)


def _plain(model: BaseModel) -> dict[str, object]:
    data: dict[str, object] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        # Null where null is the default says nothing; anywhere else it would be needed.
        if not field.exclude and not (value is None and field.default is None):
            data[name] = _value(value)
    return data


def _value(value: object) -> object:
    if isinstance(value, Step):
        return _plain_step(value)
    if isinstance(value, BaseModel):
        return _plain(value)
    return [_value(v) for v in value] if isinstance(value, (tuple, list)) else value


def _plain_step(step: Step) -> object:
    settings = _plain(step.settings)
    return {step.name: settings} if settings else step.name
