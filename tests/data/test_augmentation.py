"""Images are changed only for training, drawn again in each pass, alike for a seed."""

from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.configs.load import load_recipe
from modelspeed.configs.recipe import AugmentSpec, make_step
from modelspeed.core.errors import DataError
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.data.augmentation import Augmented
from modelspeed.graph.capture import clone
from modelspeed.tuning.distributed import _trainer
from modelspeed.tuning.job import Job
from modelspeed.tuning.session import open_session

IMAGES = torch.arange(1.0, 37.0).view(1, 1, 6, 6).repeat(32, 2, 1, 1)
BATCHES = [(IMAGES, torch.zeros(32))]


def passes(seed=0, **settings):
    made = Augmented(BATCHES, AugmentSpec(**settings), seed)
    return [next(iter(made))[0][0] for _ in range(2)]


def test_flips_mirror_whole_images_and_some_of_them():
    first, _ = passes(flip=True)
    mirrored = (first == IMAGES.flip(3)).all(3).all(2).all(1)
    assert ((first == IMAGES).all(3).all(2).all(1) ^ mirrored).all()
    assert 0 < int(mirrored.sum()) < 32


def test_shifts_move_images_up_to_so_far_and_repeat_the_border():
    first, _ = passes(shift=1)
    positions = [tuple((row[0] == 15.0).nonzero()[0].tolist()) for row in first]  # (2, 2) at rest
    assert {y for y, _ in positions} == {x for _, x in positions} == {1, 2, 3}
    assert torch.equal(first[:, 0], first[:, 1]) and first.shape == IMAGES.shape
    assert first.min() == 1.0 and first.max() == 36.0


def test_passes_differ_and_a_seed_gives_them_again():
    first, second = passes(flip=True, shift=2)
    again = passes(flip=True, shift=2)
    assert not torch.equal(first, second) and not torch.equal(first, passes(1, flip=True)[0])
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])


def test_what_is_no_image_is_refused():
    with pytest.raises(DataError, match=r"`data.augment` is for images .* shape \[4, 3\]"):
        next(iter(Augmented([(torch.ones(4, 3), torch.ones(4))], AugmentSpec(flip=True), 0)))
    with pytest.raises(DataError, match=r"one label per image; .* shape \[32, 6, 6\]"):
        next(iter(Augmented([(IMAGES, IMAGES[:, 0])], AugmentSpec(flip=True), 0)))


def test_only_what_weights_are_trained_on_is_changed(tmp_path):
    file = pico.project(tmp_path)
    wanted = 'data: {augment: {flip: true}, factory: "data.py:loaders"}'
    recipe = file.with_name("modelspeed.yaml")
    recipe.write_text(recipe.read_text().replace('data: {factory: "data.py:loaders"}', wanted))
    inputs = ({"shape": [1, 1, 12, 12], "dtype": "float32"},)
    job = Job(str(file), Target(threads=1), "model.py:build", str(tmp_path), inputs=inputs)
    session = open_session(job, load_recipe(recipe), Silent())
    trainer = _trainer(session, clone(session.original), make_step("finetune").settings)
    assert isinstance(trainer.train, Augmented) and trainer.train.batches is session.data.train
    assert trainer.held_out is session.data.held_out and not isinstance(
        session.data.train, Augmented
    )
