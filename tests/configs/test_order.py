from __future__ import annotations

import pytest
from modelspeed.configs.order import Mode, check_order
from modelspeed.configs.recipe import DataSpec, Recipe, Step, make_step
from modelspeed.core.errors import ConfigError

FOLD, TUNE, PRUNE = make_step("fold_batchnorm"), make_step("finetune"), make_step("prune")
FIXED = make_step("prune", ratio=0.3)
DATA = DataSpec(factory="d.py:f")


def refusals(mode: Mode, *steps: Step, data: DataSpec | None = DATA) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        check_order(Recipe(adjust=steps, data=data, source="r.yaml"), mode)
    return caught.value.problems


@pytest.mark.parametrize(
    "steps",
    [
        (make_step("channels_last"), PRUNE, TUNE, FOLD),
        (FOLD, PRUNE),
        (make_step("flush_subnormals"), make_step("scale", factor=0.5, first=1), TUNE),
        (TUNE, FOLD, make_step("flush_subnormals")),
        (),
    ],
)
def test_good_orders_are_let_through(steps: tuple[Step, ...]) -> None:
    check_order(Recipe(adjust=steps, data=DATA), "tune")


def test_a_lossless_step_twice_is_refused_but_training_folded_layers_is_fine() -> None:
    (text,) = refusals("tune", FOLD, FOLD)
    assert text.startswith("`r.yaml`: `adjust[1]` is `fold_batchnorm` again after `adjust[0]`")
    check_order(Recipe(adjust=(FOLD, PRUNE, TUNE), data=DATA), "tune")


def test_finetune_without_data_is_refused_unless_the_caller_leaves_it_out() -> None:
    (text,) = refusals("tune", TUNE, data=None)
    assert "there is no `data`" in text
    check_order(Recipe(adjust=(TUNE,)), "tune", need_data=False)


def test_two_prunes_are_refused_under_tune_and_run_under_apply() -> None:
    (text,) = refusals("tune", PRUNE, TUNE, FIXED)
    assert "`adjust[2]` is a second `prune`" in text
    check_order(Recipe(adjust=(FIXED, TUNE, FIXED), data=DATA), "apply")


def test_apply_wants_a_fixed_ratio_and_tune_does_not() -> None:
    (text,) = refusals("apply", PRUNE)
    assert "`adjust[0].prune.ratio` is missing" in text
    check_order(Recipe(adjust=(PRUNE,)), "tune")


def test_apply_of_no_steps_is_refused() -> None:
    assert "nothing to apply" in refusals("apply")[0]


def test_training_and_pruning_come_before_int8_and_half_precision() -> None:
    (text,) = refusals("tune", make_step("precision"), make_step("quantize"), TUNE)
    assert "`adjust[2]` is `finetune` after `adjust[0]`, a `precision`" in text
    check_order(Recipe(adjust=(PRUNE, TUNE, make_step("quantize"), FOLD), data=DATA), "tune")


def test_ranges_of_activations_want_data_and_weights_alone_do_not() -> None:
    (text,) = refusals("tune", make_step("quantize"), data=None)
    assert "`scheme: int8_weight`" in text
    check_order(Recipe(adjust=(make_step("quantize", scheme="int8_weight"),)), "tune")
    (text,) = refusals("tune", make_step("quantize", scheme="int4_weight", finetune=1.0), data=None)
    assert "`adjust[0].quantize.finetune` trains" in text


def test_the_input_size_is_set_first_and_once() -> None:
    size = make_step("input_size", size=160)
    check_order(Recipe(adjust=(size, PRUNE), data=DATA), "tune")
    for steps in ((PRUNE, size), (size, size)):
        (text,) = refusals("tune", *steps)
        assert text.startswith("`r.yaml`: `adjust[1]` is `input_size` after `adjust[0]`")


def test_every_bad_order_is_shown_at_once() -> None:
    assert len(refusals("apply", FOLD, FOLD, PRUNE, TUNE, data=None)) == 3
