"""Modules and tensors under dotted names: how `__init__` makes them and `forward` reaches them."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from .layout import Call, Piece, call_piece, lines, listed, prefixed
from .literals import string_literal

GROUP = '''class Group(nn.Module):
    """Modules and tensors under names."""

    def __init__(self, /, **members: nn.Module | torch.Tensor) -> None:
        super().__init__()
        for name, member in members.items():
            if isinstance(member, (nn.Module, nn.Parameter)):
                setattr(self, name, member)
            else:
                self.register_buffer(name, member)
'''


@dataclass
class Branch:
    """A name's content: a way to make it, or members with names of their own."""

    make: Piece | None = None
    kind: str = "module"
    members: dict[str, Branch] = field(default_factory=dict)

    @property
    def style(self) -> str:
        """The container of its members: `list`, `tensors`, `dict`, or `group` (by attribute)."""
        digits = all(name.isdecimal() for name in self.members)
        kinds = {member.kind for member in self.members.values()}
        counted = list(self.members) == [str(n) for n in range(len(self.members))]
        if digits and kinds == {"module"}:
            return "list" if counted else "dict"
        return "tensors" if counted and kinds == {"parameter"} else "group"


def tree(modules: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Branch:
    """`modules` maps names to how each is made; tensors inside of them are theirs."""
    root = Branch()
    for name, build in modules.items():
        _put(root, name, Branch(build))
    for name, tensor in tensors.items():
        if name.rpartition(".")[0] not in modules:
            parameter = isinstance(tensor, nn.Parameter)
            _put(root, name, Branch(_empty(tensor), "parameter" if parameter else "buffer"))
    _sort(root)
    return root


def _put(root: Branch, name: str, branch: Branch) -> None:
    *owners, leaf = name.split(".")
    for owner in owners:
        root = root.members.setdefault(owner, Branch())
    root.members[leaf] = branch


def _sort(branch: Branch) -> None:
    """Numbered members in their order; the others stay in the order of use."""
    if all(name.isdecimal() for name in branch.members):
        branch.members = dict(sorted(branch.members.items(), key=lambda item: int(item[0])))
    for member in branch.members.values():
        _sort(member)


def _empty(tensor: Tensor) -> Call:
    sizes = [str(n) for n in tensor.shape] or ["()"]
    dtype = str(tensor.dtype)
    empty = call_piece(
        "torch.empty", sizes + ([] if dtype == "torch.float32" else [f"dtype={dtype}"])
    )
    if not isinstance(tensor, nn.Parameter):
        return empty
    frozen = [] if tensor.is_floating_point() else ["requires_grad=False"]
    return call_piece("nn.Parameter", [empty, *frozen])


def plain_name(name: str) -> bool:
    """Python writes others to other names: it folds letters that look alike (NFKC), and puts the
    class's name before what begins with `__`."""
    good = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")
    return good and unicodedata.normalize("NFKC", name) == name


def reached(root: Branch, name: str) -> str:
    """The expression for what is called `name`, from inside a method."""
    at, text = root, "self"
    for part in name.split("."):
        style = at.style if at is not root else "group"
        if style in ("list", "tensors"):
            text += f"[{part}]"
        elif style == "dict":
            text += f"[{string_literal(part)}]"
        elif plain_name(part):
            text += f".{part}"
        else:
            text = f"getattr({text}, {string_literal(part)})"
        at = at.members[part]
    return text


def expression(branch: Branch) -> Piece:
    """The expression that makes a branch."""
    if branch.make is not None:
        return branch.make
    if branch.style == "list":
        return call_piece("nn.ModuleList", [listed(expression(m) for m in branch.members.values())])
    if branch.style == "tensors":
        return call_piece(
            "nn.ParameterList", [listed(expression(m) for m in branch.members.values())]
        )
    if all(plain_name(name) for name in branch.members):
        return call_piece(
            "Group", [prefixed(f"{n}=", expression(m)) for n, m in branch.members.items()]
        )
    items = [prefixed(f"{string_literal(n)}: ", expression(m)) for n, m in branch.members.items()]
    entries = Call("{", tuple(items), "}")
    return call_piece("nn.ModuleDict", [entries]) if branch.style == "dict" else Call(
        "Group(**{", entries.items, "})"
    )  # fmt: skip


def init_lines(root: Branch, indent: str) -> list[str]:
    """The body of `__init__` after `super()`."""
    written: list[str] = []
    for name, member in root.members.items():
        text = string_literal(name)
        if member.kind == "buffer":
            piece: Piece = call_piece("self.register_buffer", [text, expression(member)])
        elif plain_name(name):
            piece = prefixed(f"self.{name} = ", expression(member))
        elif member.kind == "module":
            piece = call_piece("self.add_module", [text, expression(member)])
        else:
            piece = call_piece("self.register_parameter", [text, expression(member)])
        written += lines(piece, indent)
    return written


def uses_groups(root: Branch) -> bool:
    return any("Group(" in str(expression(member)) for member in root.members.values())
