"""`folder:DIR`: a class a sub-folder, preprocessed as the recipe says, parted alike always."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from modelspeed.configs.recipe import DataSpec, ImageSpec, InputSpec, Recipe
from modelspeed.core.errors import DataError, MissingExtra
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.data.image_folder import image_loaders
from modelspeed.data.load import load_data
from modelspeed.tuning.job import Job
from modelspeed.tuning.session import open_session
from PIL import Image
from torch import nn

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0)}


def drawn(folder, count=5, size=(20, 10)):
    for name, color in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", size, color).save(folder / name / f"{i}.png")
    return folder


def spec(**images):
    return DataSpec(factory="folder:x", batch=4, share=0.4, images=ImageSpec(**images))


def test_each_class_is_parted_and_numbered_by_name(tmp_path):
    made = spec(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    train, held = image_loaders(made, drawn(tmp_path), ())
    inputs, targets = next(iter(held))
    assert inputs.shape == (4, 3, 8, 8) and targets.tolist() == [0, 0, 1, 1]
    assert targets.dtype == torch.int64
    assert inputs[0, :, 0, 0].tolist() == [0.0, 0.0, 1.0]
    assert inputs[3, :, 7, 7].tolist() == [0.0, 1.0, 0.0]
    parts = [{p for p, _ in loader.dataset.items} for loader in (train, held)]
    assert len(parts[0]) == 6 and not parts[0] & parts[1]
    again = image_loaders(made, tmp_path, ())[1].dataset.items
    assert again == held.dataset.items


def test_train_and_val_are_taken_as_they_are(tmp_path):
    drawn(tmp_path / "train"), drawn(tmp_path / "val", count=2)
    train, held = image_loaders(spec(size=8), tmp_path, ())
    assert (len(train.dataset), len(held.dataset)) == (10, 4)
    (tmp_path / "val" / "red").mkdir()
    with pytest.raises(DataError, match="class `red` is not in both"):
        image_loaders(spec(size=8), tmp_path, ())


def test_the_middle_is_cropped_resized_and_normalized(tmp_path):
    (tmp_path / "a").mkdir()
    image = Image.new("L", (40, 20), 0)
    image.paste(255, (10, 0, 30, 20))  # the middle square is white
    for i in range(2):
        image.save(tmp_path / "a" / f"{i}.png")
    made = spec(size=(10, 10), crop=0.5, mean=(0.5,), std=(0.5,))
    inputs, _ = next(iter(image_loaders(made, tmp_path, ())[1]))
    assert inputs.shape == (1, 1, 10, 10) and bool((inputs == 1).all())
    whole = spec(size=(20, 40), crop=1.0, mean=(0.5,), std=(0.5,))
    inputs, _ = next(iter(image_loaders(whole, tmp_path, ())[1]))
    assert (inputs == 1).double().mean() == 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_of_16_bits_is_scaled_like_8_bits(tmp_path, channels):
    (tmp_path / "a").mkdir()
    for i, value in enumerate((1000, 40000)):
        image = Image.fromarray(np.full((8, 8), value, dtype=np.uint16))
        assert image.mode == "I;16"
        image.save(tmp_path / "a" / f"{i}.png")
    made = spec(size=4, mean=(0.0,) * channels, std=(1.0,) * channels)
    parts = [next(iter(part))[0] for part in image_loaders(made, tmp_path, ())]
    assert parts[0].shape == (1, channels, 4, 4)
    means = sorted(float(part.mean()) for part in parts)
    assert means == pytest.approx([1000 / 65535, 40000 / 65535])


def test_size_comes_from_the_models_input_and_statistics_of_other_channels_are_asked_for(tmp_path):
    takes = (InputSpec(shape=(1, 3, 6, 12)),)
    inputs, _ = next(iter(image_loaders(DataSpec(factory="folder:x"), drawn(tmp_path), takes)[0]))
    assert inputs.shape[1:] == (3, 6, 12)
    with pytest.raises(DataError, match="must give `mean` and `std`"):
        image_loaders(DataSpec(factory="folder:x"), tmp_path, (InputSpec(shape=(1, 1, 6, 6)),))


def test_what_is_no_image_or_no_folder_of_classes_is_named(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        image_loaders(spec(), tmp_path / "none", ())
    with pytest.raises(DataError, match="no sub-folders"):
        image_loaders(spec(), tmp_path, ())
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="has no images"):
        image_loaders(spec(), tmp_path, ())
    for i in range(3):
        (tmp_path / "a" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"a/\d\.png` can't be read as an image"):
        next(iter(image_loaders(spec(), tmp_path, ())[0]))


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtra, match=r"modelspeed\[images\]"):
        image_loaders(spec(size=8), drawn(tmp_path), ())


def test_a_recipe_loads_it_with_a_held_out_part(tmp_path):
    drawn(tmp_path / "images", count=40)
    data = DataSpec(factory="folder:images", batch=4, images=ImageSpec(size=4))
    found = load_data(Recipe(data=data, base=tmp_path))
    counts = [sum(len(y) for _, y in part) for part in (found.train, found.held_out, found.eval)]
    assert sum(counts) == 80 and counts[2] == 16 and counts[1] >= 4


@pytest.mark.parametrize(
    "names", [("Train", "Val"), ("training", "validation"), ("TRAIN", "Test"), ("train", "holdout")]
)
def test_parts_are_known_by_their_usual_names_in_any_case(tmp_path, names):
    drawn(tmp_path / names[0]), drawn(tmp_path / names[1], count=2)
    train, held = image_loaders(spec(size=8), tmp_path, ())
    assert (len(train.dataset), len(held.dataset)) == (10, 4)


@pytest.mark.parametrize("names", [("train",), ("Train", "x"), ("val", "x"), ("one", "two")])
def test_folders_of_classes_are_never_taken_for_classes(tmp_path, names):
    for name in names:
        drawn(tmp_path / name)
    with pytest.raises(DataError, match="folders of images"):
        image_loaders(spec(size=8), tmp_path, ())


def test_a_class_may_be_called_train_and_hold_its_images_in_one_folder(tmp_path):
    for name in ("train", "bus/images", "test"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    train, _ = image_loaders(spec(size=8), tmp_path, ())
    assert {label for _, label in train.dataset.items} == {0, 1, 2}


def test_the_inputs_of_the_model_give_size_and_keyword_where_the_recipe_has_none(tmp_path):
    data = DataSpec(factory="folder:.", batch=4)
    takes = [{"shape": [1, 3, 6, 12], "dtype": "float32", "name": "pixel_values"}]
    found = load_data(Recipe(data=data, base=drawn(tmp_path, count=40)), takes)
    for part in (found.train, found.held_out, found.calibration, found.eval):
        inputs, targets = next(iter(part))
        assert set(inputs) == {"pixel_values"} and len(inputs["pixel_values"]) == len(targets)
        assert inputs["pixel_values"].shape[1:] == (3, 6, 12)
    assert found.classes == 2


@pytest.mark.parametrize("outputs", [2, 5])
def test_another_number_of_classes_than_the_model_has_is_said(tmp_path, outputs):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(net, nn.Linear(4, outputs)).eval()
    program = torch.export.export(model, (torch.ones(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "m.pt2")
    drawn(tmp_path / "images", count=20)
    recipe = Recipe(data=DataSpec(factory="folder:images", batch=1), base=tmp_path)
    said = Said()
    session = open_session(Job(str(tmp_path / "m.pt2"), Target(threads=1)), recipe, said)
    assert next(iter(session.data.eval))[0].shape == (1, 3, 8, 8)
    assert any("2 classes, the model 5" in note for note in said.notes) is (outputs == 5)


class Said(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)
