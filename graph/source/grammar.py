"""The grammar of a written file, which is parsed and compared before anything of it runs.

Everything outside of the class is known word by word. Inside, only calls of the operators that the
graph has, of modules under the names that the graph has, and literals: whatever a name or a text of
a program tries to be, it stays a name or a text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.fx import Node

from ...core.errors import EditError
from .literals import NAMED_TYPES
from .spelling import heads_of, operator_of

_MODULES = """Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Linear LayerNorm
    BatchNorm1d BatchNorm2d BatchNorm3d RMSNorm GroupNorm Embedding PReLU ModuleList ModuleDict
    ParameterList Parameter"""
_INIT = {
    *(f"nn.{name}" for name in _MODULES.split()), "torch.empty", "Group", "super().__init__",
    "self.register_buffer", "self.add_module", "self.register_parameter",
}  # fmt: skip
_NUMBERS = {"float", "complex"}
_PROPERTIES = {"shape", "device", "T", "mT"}
_METHODS = {"split", "to", "clone", "expand_as"}
_WHOLE = (
    ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Slice,
    ast.keyword, ast.Starred, ast.operator, ast.unaryop, ast.cmpop, ast.expr_context,
)  # fmt: skip


@dataclass(frozen=True)
class Grammar:
    """`heads`: functions by their full names; `methods` of tensors; `paths` from `self`."""

    heads: frozenset[str]
    methods: frozenset[str]
    paths: frozenset[str]

    @classmethod
    def of(cls, nodes: Iterable[Node], paths: Iterable[str]) -> Grammar:
        operators = [n for n in nodes if operator_of(n)]
        heads = {head for node in operators for head in heads_of(node)}
        methods = {operator_of(n) for n in operators} | _METHODS
        return cls(frozenset(heads), frozenset(methods), frozenset(map(_path, paths)))

    def check(self, text: str, frame: str) -> None:
        """Raises EditError where `text` is more than `frame` and a class of known parts."""
        try:
            (*outside, model), known = _split(text), _split(frame)[:-1]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise EditError(f"its source does not parse ({type(error).__name__})") from error
        if list(map(ast.dump, outside)) != list(map(ast.dump, known)):
            raise EditError("its source would hold more than a model")
        self._model(model)

    def _model(self, model: ast.stmt) -> None:
        good = isinstance(model, ast.ClassDef) and len(model.body) == 2
        init, forward = model.body if isinstance(model, ast.ClassDef) and good else (model, model)
        if not (isinstance(init, ast.FunctionDef) and isinstance(forward, ast.FunctionDef)):
            raise _strange(model)
        if ast.unparse(_bare(init)) != _bared("def __init__(self) -> None: pass"):
            raise _strange(init)
        given = [a.arg for a in forward.args.args][1:]
        taken = ", ".join(["self", *(f"{name}: torch.Tensor" for name in given)])
        forms = {_bared(f"def forward({taken}){end}: pass") for end in ("", " -> torch.Tensor")}
        if ast.unparse(_bare(forward)) not in forms:
            raise _strange(forward)
        for statement in init.body:
            self._statement(statement, {"self"}, self.heads | _INIT)
        scope = {a.arg for a in forward.args.args}
        names = [n for n in ast.walk(forward) if isinstance(n, ast.Name)]
        scope |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
        for statement in forward.body:
            self._statement(statement, scope, self.heads)

    def _statement(self, statement: ast.stmt, scope: set[str], heads: Iterable[str]) -> None:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            if not _is_target(statement.targets[0]):
                raise _strange(statement)
        elif not isinstance(statement, (ast.Expr, ast.Return)):
            raise _strange(statement)
        if statement.value is not None:
            self._expression(statement.value, scope, frozenset(heads) | _NUMBERS)

    def _expression(self, node: ast.AST, scope: set[str], heads: frozenset[str]) -> None:
        if isinstance(node, ast.Name):
            if node.id not in scope:
                raise _strange(node)
            return
        reached = isinstance(node, (ast.Attribute, ast.Subscript, ast.Call))
        if reached and ast.dump(node) in self.paths:
            return
        if isinstance(node, ast.Call):
            self._function(node.func, scope, heads)
            inner: Iterable[ast.AST] = [*node.args, *(k.value for k in node.keywords)]
        elif isinstance(node, ast.Attribute):
            if _is_type(node):
                return
            if node.attr not in _PROPERTIES:
                raise _strange(node)
            inner = [node.value]
        elif isinstance(node, (ast.Subscript, *_WHOLE)):
            inner = ast.iter_child_nodes(node)
        else:
            raise _strange(node)
        for part in inner:
            self._expression(part, scope, heads)

    def _function(self, node: ast.expr, scope: set[str], heads: frozenset[str]) -> None:
        if ast.dump(node) in self.paths or ast.unparse(node) in heads:
            return
        if not (isinstance(node, ast.Attribute) and node.attr in self.methods):
            raise _strange(node)
        self._expression(node.value, scope, heads)


def _split(text: str) -> list[ast.stmt]:
    """All statements but the docstring, the class of the model last."""
    first, *rest = ast.parse(text).body
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        raise _strange(first)
    models = [s for s in rest if isinstance(s, ast.ClassDef) and s.name == "Model"]
    if len(models) != 1 or [ast.unparse(base) for base in models[0].bases] != ["nn.Module"]:
        raise _strange(first)
    if models[0].decorator_list or models[0].keywords:
        raise _strange(models[0])
    return [*(s for s in rest if s is not models[0]), models[0]]


def _path(text: str) -> str:
    """The tree of an expression that leads from `self` to a module or tensor, and nothing else."""
    whole = at = ast.parse(text, mode="eval").body
    while not isinstance(at, ast.Name):
        if isinstance(at, ast.Call):
            name, given = at.func, at.args
            if ast.unparse(name) != "getattr" or len(given) != 2 or at.keywords:
                raise _strange(at)
            at, leaf = given
        elif isinstance(at, ast.Subscript):
            leaf = at.slice
            at = at.value
        elif isinstance(at, ast.Attribute):
            at, leaf = at.value, None
        else:
            raise _strange(at)
        if leaf is not None and not isinstance(leaf, ast.Constant):
            raise _strange(leaf)
    return ast.dump(whole)


def _bare(function: ast.FunctionDef) -> ast.FunctionDef:
    """Without its body: decorators, defaults and annotations are what is left."""
    return ast.FunctionDef(
        function.name, function.args, [ast.Pass()], function.decorator_list, function.returns,
        lineno=1,
    )  # fmt: skip


def _bared(text: str) -> str:
    return ast.unparse(ast.parse(text))


def _is_target(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return all(isinstance(part, ast.Name) for part in node.elts)
    own = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
    return own or isinstance(node, ast.Name)


def _is_type(node: ast.Attribute) -> bool:
    of_torch = isinstance(node.value, ast.Name) and node.value.id == "torch"
    return of_torch and isinstance(getattr(torch, node.attr, None), NAMED_TYPES)


def _strange(node: ast.AST) -> EditError:
    return EditError(f"its source would hold `{ast.unparse(node)[:60]}`, which is not of a model")
