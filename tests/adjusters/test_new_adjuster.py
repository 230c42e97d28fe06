"""A new adjuster is settings with facts, a plan, a registry line and a preset: nothing else.

The toy below is added at run time; orders, `list`, `apply` and the report must know it by then.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import modelspeed
import pico
import pytest
import torch
from modelspeed.adjusters.plan import Adjuster, Context, Plan, parameter_names
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.cli.main import app
from modelspeed.configs import presets
from modelspeed.configs.base_settings import Settings
from modelspeed.configs.facts import Facts
from modelspeed.configs.layer_settings import Precision
from modelspeed.configs.order import check_order
from modelspeed.configs.recipe import Recipe, Step, make_step
from modelspeed.configs.settings import SETTINGS
from modelspeed.core.errors import ConfigError
from modelspeed.graph.capture import tensor_at
from modelspeed.graph.edits.apply import ScaleParameter
from modelspeed.search.number_formats import half_precision_steps
from pydantic import Field
from quick import hasten
from typer.testing import CliRunner


class Dim(Settings):
    """Multiply every bias by a factor."""

    facts: ClassVar[Facts] = Facts(needs_float=True, once=True)

    factor: float = Field(default=0.5, description="What the biases are multiplied by.")


def plan(context: Context, settings: Any) -> Plan:
    names = [n for n in parameter_names(context.module) if n.endswith("bias")]
    return Plan(tuple(ScaleParameter(n, settings.factor) for n in names))


PRESET = "# Every bias halved.\nversion: 1\nadjust:\n  - dim\n"


@pytest.fixture(autouse=True)
def dim(tmp_path, monkeypatch):
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "dim.yaml").write_text(PRESET)
    monkeypatch.setitem(SETTINGS, "dim", Dim)
    monkeypatch.setitem(ADJUSTERS, "dim", Adjuster("dim", "multiply biases", plan))
    monkeypatch.setattr(presets, "files", lambda _: folder)


def refusal(*steps: Step) -> str:
    with pytest.raises(ConfigError) as caught:
        check_order(Recipe(adjust=steps), "tune")
    (text,) = caught.value.problems
    return text


def test_rules_of_order_hold_for_it_by_its_facts(monkeypatch):
    dim, half = make_step("dim"), make_step("precision")
    check_order(Recipe(adjust=(dim, half)), "tune")
    assert "`adjust[1]` is `dim` after `adjust[0]`, a `precision`" in refusal(half, dim)
    assert "`adjust[1]` is `dim` again" in refusal(dim, dim)
    monkeypatch.setattr(Dim, "facts", Facts(is_training=True, needs_data="always"))
    assert "`adjust[0]` is `dim`, but there is no `data`" in refusal(dim)
    monkeypatch.setattr(Dim, "facts", Facts(first=True))
    assert "Put it first" in refusal(half, dim)
    monkeypatch.setattr(Dim, "facts", Facts(changes_format=True, searched="the whole model"))
    assert "after `adjust[0]`, a `dim`" in refusal(dim, make_step("scale", factor=2.0, first=1))
    assert half_precision_steps(Recipe(adjust=(dim, half))) == (0, 1)
    assert isinstance(half.settings, Precision)


def test_list_shows_its_settings_its_facts_and_its_preset():
    answer = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    assert "factor" in answer["adjusters"]["dim"]["properties"]
    assert (
        answer["facts"]["dim"]["needs_float"] and answer["presets"]["dim"] == "Every bias halved."
    )
    text = CliRunner().invoke(app, ["list"], env={"COLUMNS": "120"}).stdout
    assert text.count("│ dim ") == 4  # itself, its setting, its facts, its preset


@pytest.fixture
def apply(tmp_path, monkeypatch):
    hasten(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    pico.project(tmp_path)
    words = ["apply", "ckpt.pt", "--preset", "dim", "--threads", "1", "--out", "out", "--json"]
    return lambda *more: CliRunner().invoke(app, [*words, *more])


def test_apply_runs_it_and_the_artifact_comes_back_and_runs_again(apply, tmp_path):
    done = apply()
    assert done.exit_code in (0, 4), done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert (step["adjuster"], step["status"], step["settings"]) == ("dim", "kept", {"factor": 0.5})
    assert "| dim | kept |" in (tmp_path / "out" / "report.md").read_text()
    assert "- dim" in (tmp_path / "out" / "recipe.yaml").read_text()
    scope: dict[str, Any] = {}
    exec(pico.MODEL_FILE, scope)
    original = scope["build"]()
    original.load_state_dict(torch.load(tmp_path / "ckpt.pt"))
    with torch.no_grad():
        for name, value in original.named_parameters():
            value.mul_(0.5 if name.endswith("bias") else 1.0)
        wanted = original.eval()(pico.images(1))
        got = modelspeed.load(tmp_path / "out")(pico.images(1))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_without_data_it_is_refused_as_lossy_unless_its_facts_say_it_is_not(
    apply, tmp_path, monkeypatch
):
    blind = pico.RECIPE.replace('data: {factory: "data.py:loaders"}', "")
    (tmp_path / "modelspeed.yaml").write_text(blind)
    done = apply()
    assert done.exit_code == 2 and "(`dim`) may cost accuracy" in " ".join(done.stderr.split())
    monkeypatch.setattr(Dim, "facts", Facts(lossless=True))
    assert ADJUSTERS["dim"].lossless
    assert apply("--dry-run").exit_code == 0


def test_its_plan_needs_no_more_than_a_context():
    from modelspeed.graph.capture import capture

    module = capture(pico.net(["residual"]), (pico.images(),))
    edits = plan(Context(module, (pico.images(),)), Dim()).edits
    assert edits and all(tensor_at(module, e.param).dim() == 1 for e in edits)
