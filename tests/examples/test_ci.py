"""The CI examples, run step by step in a sandbox: what they say must work as it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pico
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CI = ROOT / "examples" / "ci"
# The command line with short measurements; a fresh process only where its samples are needed.
SHIM = """#!{python}
import os, sys
from functools import partial
sys.path.insert(0, {support!r})
from quick import hasten
from modelspeed.batch import plan
from modelspeed.cli.main import main
from modelspeed.tuning import check, delivery
usual = delivery.verify
hasten(setattr)
if "SAMPLES" in os.environ:
    delivery.verify = lambda job, folder, recipe, ms, seconds, *more: usual(
        job, folder, recipe, ms, 0.5, *more)
check.measure = partial(lambda f, *a, **o: f(*a, **{{**o, "max_seconds": 0.2}}), check.measure)
plan.TUNE = (sys.executable, sys.argv[0], "tune")
main()
"""


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """A repository of a user with a checkpoint, and commands as on a runner."""
    recipe = pico.RECIPE.replace("  - finetune: {epochs: 1, bn_batches: 2}\n", "")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "modelspeed").write_text(SHIM.format(
        python=sys.executable, support=str(Path(pico.__file__).parent)))  # fmt: skip
    (bin_ / "modelspeed").chmod(0o755)
    env = {
        "PATH": f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MODELSPEED_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        # pip looks at the package and installs nothing over what the tests run on; for a flag that
        # begins with `no`, its variable takes what the flag sets: 0 is no isolation.
        "PIP_DRY_RUN": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0",
    }  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    checkpoint = pico.project(tmp_path / "repository", recipe)
    checkpoint.rename(checkpoint.with_name("model.pt"))
    return tmp_path / "repository"


def run(script, sandbox, variables):
    env = {**os.environ, **variables, "MODELSPEED": str(ROOT)}
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=sandbox, env=env,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


@pytest.mark.long
def test_the_github_workflow_runs_step_by_step(sandbox):
    flow = yaml.safe_load((CI / "github.yml").read_text())
    assert list(flow["jobs"]) == ["tune", "check"] and flow["jobs"]["check"]["needs"] == "tune"
    done = set()
    for job in flow["jobs"].values():
        steps = [step for step in job["steps"] if "run" in step]
        assert len(steps) >= 2 and all("uses" in s or "run" in s for s in job["steps"])
        for step in steps:
            if step["run"] not in done:  # both jobs install
                run(step["run"], sandbox, {**flow["env"], "SAMPLES": "1"})
            done.add(step["run"])
    suite = ElementTree.parse(sandbox / "check.xml").find("testsuite")
    assert {row.get("name") for row in suite} == {
        "artifact", "outputs", "latency", "regression", "accuracy",
    }  # fmt: skip
    summary = (sandbox.parent / "summary.md").read_text()
    assert "# modelspeed tune" in summary and "### modelspeed check `fast`" in summary


@pytest.mark.long
def test_the_gitlab_pipeline_runs_step_by_step(sandbox):
    flow = yaml.safe_load((CI / "gitlab-ci.yml").read_text())
    (sandbox / "models").mkdir()
    for name in ("model.pt", "model.py", "data.py", "modelspeed.yaml"):
        (sandbox / name).rename(sandbox / "models" / name)
    for script in (flow["default"]["before_script"], *(flow[s]["script"] for s in flow["stages"])):
        run("\n".join(script), sandbox, flow["variables"])
    assert (sandbox / "fast" / "index.html").is_file()
    assert ElementTree.parse(sandbox / "check-model.xml").find("testsuite").get("failures") == "0"
