from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from modelspeed.configs.load import load_recipe
from torch import nn

FOLDER = Path(__file__).parents[2] / "examples" / "digits"
# Of 600 images; kernels round differently between machines, so one image may flip.
CLAIMED, LEAST = 595 / 600, 0.97


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def from_file(name: str) -> ModuleType:
    """A file of the example as a user's factory is imported: by path, in no package."""
    spec = importlib.util.spec_from_file_location(f"digits_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data() -> ModuleType:
    return from_file("data")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    model: nn.Module = from_file("model").build(width=32)
    model.load_state_dict(torch.load(FOLDER / "digits_resnet.pt", weights_only=True))
    return model.eval()


def whole(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_batches_have_the_promised_shapes_and_types(data: ModuleType) -> None:
    train, held = data.loaders()
    sizes = [[len(labels) for _, labels in part] for part in (train, held)]
    assert sizes == [[64] * 18 + [45], [200] * 3]
    assert [len(train), len(held)] == [19, 3]
    for images, labels in [*train, *held]:
        assert images.shape == (len(labels), 1, 32, 32) and labels.shape == (len(labels),)
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert images.is_contiguous()


def test_images_are_normalized_and_labels_are_the_ten_digits(data: ModuleType) -> None:
    train, _ = data.loaders()
    images, labels = train.images, train.labels
    assert abs(float(images.mean())) < 0.02
    # Interpolation smooths, so the spread falls below that of the 8x8 pixels.
    assert 0.8 < float(images.std()) < 1.0
    assert float(images.min()) >= -data.MEAN / data.STD - 1e-5
    assert float(images.max()) <= (1 - data.MEAN) / data.STD + 1e-5
    assert sorted(set(labels.tolist())) == list(range(10))


def test_upsampling_is_bilinear_and_upright(data: ModuleType) -> None:
    _, held = data.loaders()
    with np.load(FOLDER / "digits.npz", allow_pickle=False) as file:
        first = file["images"][file["held"][0]] / 16.0
    # A block of 4x4 averages to its pixel and a little of the pixels around it.
    blocks = held.images[0, 0].reshape(8, 4, 8, 4).mean((1, 3)).numpy() * data.STD + data.MEAN
    assert np.corrcoef(blocks.ravel(), first.ravel())[0, 1] > 0.97


def test_the_split_is_disjoint_whole_and_stratified(data: ModuleType) -> None:
    train, held = data.loaders()
    with np.load(FOLDER / "digits.npz", allow_pickle=False) as file:
        labels, indexes = file["labels"], file["held"]
    assert len(set(indexes.tolist())) == 600 and len(labels) == 1797
    assert held.labels.tolist() == labels[indexes].tolist()
    assert train.labels.tolist() == np.delete(labels, indexes).tolist()
    share = np.bincount(labels[indexes], minlength=10) / np.bincount(labels, minlength=10)
    assert np.abs(share - 600 / 1797).max() < 0.005


def test_no_image_is_in_both_parts(data: ModuleType) -> None:
    train, held = data.loaders()
    seen = {image.numpy().tobytes() for image in train.images}
    assert not [i for i, image in enumerate(held.images) if image.numpy().tobytes() in seen]


def test_evaluation_is_the_same_on_every_pass(data: ModuleType) -> None:
    _, held = data.loaders()
    once, again = whole(held), whole(held)
    assert torch.equal(once[0], again[0]) and torch.equal(once[1], again[1])
    assert torch.equal(once[0], held.images)


def test_training_differs_between_passes_but_not_between_runs(data: ModuleType) -> None:
    first, second = data.loaders()[0], data.loaders()[0]
    runs = [[whole(part), whole(part)] for part in (first, second)]
    assert not torch.equal(runs[0][0][1], runs[0][1][1])
    for mine, other in zip(runs[0], runs[1], strict=True):
        assert torch.equal(mine[0], other[0]) and torch.equal(mine[1], other[1])
    assert torch.equal(runs[0][0][1].bincount(), first.labels.bincount())


def test_batches_leave_the_global_generator_alone(data: ModuleType) -> None:
    before = torch.random.get_rng_state()
    whole(data.loaders()[0])
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_shift_moves_each_image_by_at_most_two_pixels(data: ModuleType) -> None:
    images = data.loaders()[1].images[:64]
    moved = data._shifted(images, torch.Generator().manual_seed(3))
    found = set()
    for image, result in zip(images, moved, strict=True):
        wide = nn.functional.pad(image, (2, 2, 2, 2), mode="replicate")
        steps = [(y, x) for y in range(5) for x in range(5)]
        fits = [s for s in steps if torch.equal(wide[:, s[0] :, s[1] :][:, :32, :32], result)]
        assert fits
        found.add(fits[0])
    assert len(found) > 10


def test_width_scales_the_network(data: ModuleType) -> None:
    build = from_file("model").build
    counts = [sum(p.numel() for p in build(width=w).parameters()) for w in (4, 32)]
    assert counts[1] == 1_084_010 and counts[0] < 20_000
    with torch.no_grad():
        assert build(width=4).eval()(torch.zeros(3, 1, 32, 32)).shape == (3, 10)


@torch.no_grad()
def test_the_checkpoint_has_the_accuracy_that_the_readme_claims(
    data: ModuleType, trained: nn.Module
) -> None:
    right = [trained(images).argmax(1) == labels for images, labels in data.loaders()[1]]
    accuracy = float(torch.cat(right).float().mean())
    assert accuracy >= LEAST
    assert abs(accuracy - CLAIMED) < 0.003
    assert f"{CLAIMED:.1%}".replace("%", " %") in (FOLDER / "README.md").read_text()


def test_the_checkpoint_is_finite_float32_weights_below_5_mb(trained: nn.Module) -> None:
    assert (FOLDER / "digits_resnet.pt").stat().st_size < 5_000_000
    for name, value in trained.state_dict().items():
        assert torch.isfinite(value).all(), name
        assert value.dtype in (torch.float32, torch.int64), name


def test_the_recipe_is_valid_and_leaves_the_target_to_the_caller() -> None:
    recipe = load_recipe(FOLDER / "modelspeed.yaml")
    assert recipe.target.ms is None and recipe.limits.max_drop == 0.01
    assert [step.name for step in recipe.adjust] == [
        "flush_subnormals",
        "drop_blocks",
        "prune",
        "compensate",
        "finetune",
        "fold_batchnorm",
        "channels_last",
    ]


def test_the_data_licence_names_source_authors_licence_and_changes() -> None:
    text = (FOLDER / "LICENSE-DATA.md").read_text()
    for word in ("UCI", "Alpaydin", "Kaynak", "CC BY 4.0", "Changes"):
        assert word in text
