"""YAML text -> plain values with the line of each. Bounded: no alias bomb, no deep recursion.

Scalars follow the YAML 1.2 core schema, so `1e-3` is a number and `on` is text; PyYAML's own 1.1
rules make a string of the first and a bool of the second. Merge keys (`<<`) are not special.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from ..core.errors import ConfigError
from ..core.json_values import JsonObject
from .sentences import as_text, tick

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_ALIASES = 100
MAX_DEPTH = 40
Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
RULES = (
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    ("int", re.compile(rf"(?:{_INT.pattern})\Z"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    # A table of our own: the inherited one is PyYAML's YAML 1.1.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    aliases = 0
    nodes = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.aliases += self.check_event(yaml.AliasEvent)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(None, None, f"more than {MAX_NODES} values", mark)
        if self.aliases > MAX_ALIASES:
            raise yaml.MarkedYAMLError(None, None, f"more than {MAX_ALIASES} aliases", mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {MAX_DEPTH}", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _name, _pattern, _first in RULES:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)


@dataclass
class Tree:
    """The values, the line (from 1) of each path, and what was wrong, as (line, text)."""

    name: str
    value: JsonObject = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    nodes: int = 0

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing that holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_tree(text: str, name: str) -> Tree:
    """Raises ConfigError where there is nothing to go on with; smaller problems are collected."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError([f"`{name}` is larger than {MAX_BYTES} bytes; a recipe is a short text."])
    node = _compose(text, name)
    if node is None:
        raise ConfigError([f"`{name}` is empty; start with `version: 1` and an `adjust` list."])
    tree = Tree(name)
    value = _build(tree, node, (), ())
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise ConfigError([f"`{name}` holds {kind}; a recipe is a mapping such as `version: 1`."])
    tree.value = value
    return tree


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark or error.context_mark, error.problem or error.context
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
        raise ConfigError([f"`{name}`: not valid YAML at {where}: {what}."]) from error
    except yaml.reader.ReaderError as error:
        at = f"character {error.position + 1}"
        raise ConfigError([f"`{name}`: not valid YAML at {at}: {error.reason}."]) from error
    except (ValueError, OverflowError) as error:
        # PyYAML passes escapes such as "\Uffffffff" to chr() unchecked.
        raise ConfigError([f"`{name}`: not valid YAML: {error}."]) from error


def _build(tree: Tree, node: yaml.Node, path: Path, open_nodes: tuple[int, ...]) -> object:
    tree.nodes += 1
    line = node.start_mark.line + 1
    tree.lines.setdefault(path, line)
    if tree.nodes > MAX_NODES or len(open_nodes) > MAX_DEPTH or id(node) in open_nodes:
        raise ConfigError(
            [f"`{tree.name}:{line}`: its aliases expand to too much; write the values out."]
        )
    inside = (*open_nodes, id(node))
    if isinstance(node, yaml.ScalarNode):
        return _scalar(tree, node, line)
    if node.tag not in (f"{_TAG}seq", f"{_TAG}map"):
        tree.problems.append(
            (line, f"the tag {tick(node.tag)} is not allowed; write plain values.")
        )
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_build(tree, n, (*path, i), inside) for i, n in enumerate(node.value)]
    return _mapping(tree, node, path, inside)


def _mapping(tree: Tree, node: yaml.Node, path: Path, inside: tuple[int, ...]) -> JsonObject:
    result: JsonObject = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            tree.problems.append((line, "a key is a list or mapping; it must be text."))
            continue
        key = _text(tree, key_node.value, line)
        if key in result:
            before = tree.lines[(*path, key)]
            text = f"the key {tick(key)} is given twice, first on line {before}; keep one of them."
            tree.problems.append((line, text))
            continue
        tree.lines[(*path, key)] = line
        result[key] = _build(tree, value_node, (*path, key), inside)
    return result


def _scalar(tree: Tree, node: yaml.Node, line: int) -> object:
    kind, text = node.tag.removeprefix(_TAG), _text(tree, node.value, line)
    rule = next((pattern for name, pattern, _ in RULES if name == kind), None)
    if kind == "str":
        return text
    if rule is None or not rule.match(text):
        tree.problems.append(
            (line, f"{as_text(text)} can't be read as {tick(node.tag)}; write plain values.")
        )
        return None
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if len(text) > 300:
        tree.problems.append((line, "a number has more than 300 digits."))
        return None
    if kind == "int":
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))


def _text(tree: Tree, text: str, line: int) -> str:
    if any("\ud800" <= c <= "\udfff" for c in text):
        tree.problems.append(
            (line, f"{as_text(text)} holds half a surrogate pair; that is not text.")
        )
        return ascii(text)
    return text
