"""The demo's data and checkpoint are what their README says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[2] / "examples" / "digits"


def load(name):
    spec = importlib.util.spec_from_file_location(f"digits_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_batches_have_the_stated_shapes_and_can_be_read_twice():
    train, held = load("data").loaders()
    images, labels = next(iter(train))
    assert images.shape == (64, 1, 32, 32) and images.dtype == torch.float32
    assert labels.dtype == torch.int64 and set(labels.tolist()) <= set(range(10))
    assert sum(len(y) for _, y in train) == 1197
    assert [len(y) for _, y in held] == [200, 200, 200] == [len(y) for _, y in held]


def test_train_and_eval_images_are_disjoint():
    train, held = load("data").loaders()
    seen = {x.numpy().tobytes() for x in train.images}
    assert not seen & {x.numpy().tobytes() for x in held.images}


def test_the_checkpoint_reaches_its_accuracy():
    model = load("model").build()
    model.load_state_dict(torch.load(FOLDER / "digits_resnet.pt", weights_only=True))
    model.eval()
    with torch.no_grad():
        right = [model(x).argmax(1) == y for x, y in load("data").loaders()[1]]
    assert torch.cat(right).float().mean() >= 0.98
