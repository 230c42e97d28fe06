"""What holds for each adjuster is said once, and the docs say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelspeed.configs.facts import Facts
from modelspeed.configs.recipe import make_step
from modelspeed.configs.setting_rows import FACTS, fact_rows
from modelspeed.configs.settings import SETTINGS

DOCS = Path(__file__).parents[2] / "docs" / "adjusters.md"


def table() -> list[str]:
    rows = [FACTS, ("---",) * len(FACTS), *((f"`{name}`", *rest) for name, *rest in fact_rows())]
    return [f"| {' | '.join(row)} |" for row in rows]


def test_the_table_in_docs_is_the_generated_one() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("|")] == table()


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_facts_agree_with_each_other(name: str) -> None:
    facts = SETTINGS[name].facts
    assert not (facts.lossless and (facts.is_training or facts.searched != "nothing"))
    assert not (facts.changes_format and facts.needs_float)
    assert facts.needs_data == "always" or not facts.is_training


@pytest.mark.parametrize(
    ("name", "settings", "opened", "wants_data"),
    [
        ("prune", {}, True, False), ("prune", {"ratio": 0.5}, False, False),
        ("drop_blocks", {}, True, False), ("drop_blocks", {"count": 1}, False, False),
        ("low_rank", {}, True, False), ("low_rank", {"rank": 4}, False, False),
        ("low_rank", {"form": "spatial"}, False, False),
        ("quantize", {}, True, True), ("quantize", {"scheme": "int8_dynamic"}, True, False),
        ("quantize", {"scheme": "int4_weight"}, False, False),
        ("precision", {}, True, False), ("finetune", {}, False, True),
    ],
)  # fmt: skip
def test_settings_say_what_is_open_and_what_needs_data(
    name: str, settings: dict[str, object], opened: bool, wants_data: bool
) -> None:
    made = make_step(name, **settings).settings
    assert (made.is_open(), made.needs_data()) == (opened, wants_data)


def test_an_adjuster_is_taken_for_lossy_unless_it_says_otherwise() -> None:
    assert not Facts().lossless
