"""Documents name files, commands and `make` targets that exist; their examples run."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from types import SimpleNamespace

import pico
import pytest
import sample_record
import torch
from imports import ROOT
from modelspeed.cli.main import app
from torch import Tensor, nn
from typer.main import get_command

# Not the changelog: history names files that are gone.
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "RESULTS.md",
]
EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
FOR_AUTHORS = {"CONTRIBUTING.md", "design.md"}  # here bare file names are ours as well
SUFFIXES = "py|md|yaml|yml|json|js|css|html|png|pt|npz|toml|txt"
FOLDERS = sorted(
    p.name for p in ROOT.iterdir()
    if p.is_dir() and (p.name == ".ci" or not p.name.startswith((".", "_")))
    and p.name not in {"out", "build", "dist"}
)  # fmt: skip
FOLDER = "|".join(re.escape(name) for name in FOLDERS)
PATH = re.compile(rf"(?<![\w/.~-])(?:{FOLDER})/(?:[\w.*-]+/)*(?:[\w*-]+\.(?:{SUFFIXES})\b)?")
CODE = re.compile(r"```.*?```|`[^`\n]+`|^(?: {4}|\t)[^\n]*$", re.DOTALL | re.MULTILINE)
EXAMPLE = re.compile(r"^# [\w/]+\.py$", re.MULTILINE)
ROOT_FILES = ("CHANGELOG.md", "Makefile", "README.md", "pyproject.toml", ".ci/run", ".ci/step")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
BARE = re.compile(rf"`([\w-]+\.(?:{SUFFIXES}))`")


def code(text: str) -> str:
    return "\n".join(CODE.findall(text))


def paths(text: str) -> set[str]:
    """Paths from the root of the repository; `NAME` in one stands for any name."""
    text = EXAMPLE.sub("", text)  # the files of an example are not there yet
    root = {name for name in ROOT_FILES if f"`{name}`" in text}
    return {path.replace("NAME", "*") for path in {*PATH.findall(text), *root}}


def missing(text: str) -> list[str]:
    return [path for path in sorted(paths(text)) if not any(ROOT.glob(path.rstrip("/")))]


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE))


@EACH
def test_every_path_that_a_document_names_exists(document):
    assert missing(document.read_text(encoding="utf-8")) == []


@EACH
def test_every_link_leads_somewhere(document):
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("name", sorted(FOR_AUTHORS))
def test_bare_file_names_for_authors_are_files_of_ours(name):
    (document,) = (d for d in DOCUMENTS if d.name == name)
    names = set(BARE.findall(document.read_text(encoding="utf-8")))
    ours = {p.name for p in ROOT.iterdir()}
    ours |= {p.name for folder in FOLDERS for p in (ROOT / folder).rglob("*")}
    assert names - ours == set()


@EACH
def test_every_make_target_and_command_that_a_document_names_exists(document):
    text = code(document.read_text(encoding="utf-8"))
    asked = set(re.findall(r"(?<![\w-])make ([a-z][\w-]*)", text))
    assert asked - targets() == set()
    commands = set(re.findall(r"(?<![\w.'\[/-])modelspeed ([a-z]+)\b", text))
    assert commands - set(get_command(app).commands) == set()


def test_ci_and_make_name_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None and set(phony[1].split()) == targets()
    assert (
        set(re.findall(r"^make (\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)) <= targets()
    )


def test_a_path_that_is_not_there_and_a_target_that_is_not_would_be_seen():
    assert missing("see `core/nowhere.py`, docs/NAME.md and `adjusters/NAME.py`") == [
        "core/nowhere.py"
    ]
    assert missing("`tests/support/zoo/`, `tests/nothing/`") == ["tests/nothing/"]
    assert paths("`out/report.json`, `ckpts/core/x.py`, `model.py`") == set()
    assert "nonsense" not in targets() and {"test", "lint"} <= targets()


# docs/design.md


DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def example(path: str) -> SimpleNamespace:
    """What the example for `path` defines, run as a part of that file."""
    (text,) = re.findall(rf"```python\n(# {re.escape(path)}\n.*?)```", DESIGN, re.DOTALL)
    name = "modelspeed." + path.removesuffix(".py").replace("/", ".")
    scope = {"__name__": name, "__package__": name.rpartition(".")[0]}
    if (ROOT / path).exists():
        scope = vars(import_module(name)) | scope
    # The file's own lazy annotations, not those of this one.
    exec(compile(text, path, "exec", dont_inherit=True), scope)
    return SimpleNamespace(**scope)


def test_the_picture_of_the_rooms_is_the_import_law():
    picture = re.search(r"```text\n(.*?)```", DESIGN, re.DOTALL)
    assert picture is not None
    floors = [tuple(line[:44].split()) for line in picture[1].splitlines()]
    assert floors == runpy.run_path(str(ROOT / "tests/core/test_layout.py"))["FLOORS"][::-1]


class Triangle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tril(self.stem(x)))


def test_the_example_of_a_rule_lets_channels_pass(monkeypatch):
    from modelspeed.graph.analysis.groups import analyze
    from modelspeed.graph.analysis.rules.table import RULES
    from modelspeed.graph.capture import capture

    module = capture(Triangle().eval(), (pico.images(),))
    assert not analyze(module).prunable
    rule = example("graph/analysis/rules/indexing.py").triangle
    monkeypatch.setitem(RULES, torch.ops.aten.tril.default, rule)
    assert [g.size for g in analyze(module).prunable] == [6]


def test_the_example_of_an_adjuster_drops_a_block(monkeypatch):
    from modelspeed.adjusters.plan import Context
    from modelspeed.configs.recipe import make_step
    from modelspeed.configs.settings import SETTINGS
    from modelspeed.graph.blocks import residual_blocks
    from modelspeed.graph.capture import capture, clone
    from modelspeed.graph.edits.apply import apply

    monkeypatch.setitem(SETTINGS, "drop_last", example("configs/settings.py").DropLast)
    adjuster = example("adjusters/drop_last.py").ADJUSTER
    module = capture(pico.net(["residual", "residual"]), (pico.images(),))
    for count, left in ((0, 2), (1, 1), (9, 0)):
        settings = make_step("drop_last", count=count).settings
        plan = adjuster.plan(Context(module, (pico.images(),)), settings)
        assert len(residual_blocks(apply(clone(module), plan.edits))) == left


def test_the_example_of_a_back_end_is_one_and_runs():
    from modelspeed.backends.plain import Plain
    from modelspeed.core.model_io import Inputs
    from modelspeed.graph.capture import capture

    backend, inputs = example("backends/no_grad.py").NoGrad(), Inputs.of((pico.images(),))
    needed = {name for name in dir(Plain) if not name.startswith("_")}
    assert needed <= set(dir(backend)) and not backend.lacks("cpu")
    module = capture(pico.net(["residual"]), tuple(inputs))
    for name in backend.names(module, inputs):
        outputs = inputs.call(backend.prepare(module, inputs, name))
        assert not outputs.requires_grad
        torch.testing.assert_close(outputs, inputs.call(module))


def test_the_example_of_a_report_is_shown_in_every_form(monkeypatch):
    from modelspeed.reporting import facts, html, markdown

    spread, tables = example("reporting/facts.py").spread, facts.tables
    monkeypatch.setattr(facts, "tables", lambda record: [*tables(record), spread(record)])
    for render in (markdown.render, html.render):
        assert "Spread of single calls" in render(sample_record.record())
