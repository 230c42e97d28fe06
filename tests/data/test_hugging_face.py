"""`datasets:NAME`: which column is what, which split is for what; what is unclear is asked for."""

from __future__ import annotations

import sys

import pytest
import torch
from modelspeed.configs.recipe import ColumnSpec, DataSpec, ImageSpec, InputSpec, Recipe
from modelspeed.core.errors import DataError, MissingExtra
from modelspeed.data.hugging_face import dataset_loaders
from modelspeed.data.load import load_data
from PIL import Image

datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")
datasets.disable_progress_bars()
IDS, MASK = [[1, 2], [3, 4]] * 5, [[1, 1], [1, 0]] * 5
LABEL = [0, 1] * 5
CLASSES = datasets.ClassLabel(names=["no", "yes"])


def rows(held, **features):
    made = datasets.Dataset.from_dict(held)
    for name, feature in features.items():
        made = made.cast_column(name, feature)
    return made


def images(count=10):
    held = {"image": [Image.new("RGB", (8, 8), (0, 255, 0)) for _ in range(count)]}
    made = datasets.Dataset.from_dict(held, features=datasets.Features(image=datasets.Image()))
    return made.add_column("label", (LABEL * 5)[:count]).cast_column("label", CLASSES)


def loaded(made, folder, inputs=(), **spec):
    made.save_to_disk(folder)
    return dataset_loaders(DataSpec(factory="datasets:x", batch=4, **spec), folder, inputs)


def test_an_image_with_its_class_is_preprocessed_like_files(tmp_path):
    plain = ImageSpec(size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    takes = (InputSpec(shape=(1, 3, 4, 4), name="pixel_values"),)
    train, held = loaded(images(), tmp_path, takes, images=plain)
    inputs, targets = next(iter(held))
    assert inputs["pixel_values"][0, :, 0, 0].tolist() == [0.0, 1.0, 0.0]
    assert (len(train.dataset), len(held.dataset), targets.dtype) == (8, 2, torch.int64)


def test_a_recipe_names_a_folder_and_its_splits_are_taken_as_they_are(tmp_path):
    parts = {"train": images(40), "test": images(6), "validation": images(3)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "pictures")
    spec = DataSpec(factory="datasets:pictures", batch=4)
    found = load_data(Recipe(data=spec, base=tmp_path))
    assert sum(len(y) for _, y in found.eval) == 3 and found.classes == 2
    datasets.DatasetDict(a=images(), b=images()).save_to_disk(tmp_path / "odd")
    with pytest.raises(DataError, match="has the splits `a`, `b`; it must have `train`"):
        dataset_loaders(spec, tmp_path / "odd", ())


def test_tokens_go_by_keyword_as_many_as_the_model_takes(tmp_path):
    text = ["a"] * 10
    made = rows({"text": text, "label": LABEL, "input_ids": IDS, "attention_mask": MASK})
    inputs, targets = next(iter(loaded(made, tmp_path / "a")[0]))
    assert set(inputs) == {"input_ids", "attention_mask"} and len(targets) == 4
    takes = (InputSpec(shape=(1, 2), dtype="int64", name="input_ids"),)
    inputs, _ = next(iter(loaded(made, tmp_path / "b", takes)[0]))
    assert set(inputs) == {"input_ids"} and inputs["input_ids"].dtype == torch.int64


def test_files_of_a_folder_are_read_and_columns_may_be_said(tmp_path):
    made = rows({"features": [[0.5, 1.0]] * 10, "price": [0.1] * 10, "id": list(range(10))})
    made.to_parquet(tmp_path / "data" / "all.parquet")
    said = ColumnSpec(inputs=("features",), target="price")
    spec = DataSpec(factory="datasets:x", columns=said)
    inputs, targets = next(iter(dataset_loaders(spec, tmp_path / "data", ())[1]))
    assert inputs.tolist() == [[0.5, 1.0]] * 2 and targets.dtype == torch.float32


@pytest.mark.parametrize(
    ("held", "said", "words"),
    [
        ({"text": ["a"] * 10, "label": LABEL}, None, "`text` is text, which no model takes"),
        ({"x": IDS, "score": LABEL}, None, "say which one is the target"),
        ({"x": IDS, "z": IDS, "label": LABEL}, None, "say which are the inputs"),
        ({"x": IDS, "label": LABEL}, ColumnSpec(target="y"), "names `y`; .* columns `x`, `label`"),
        ({"x": [[1]] * 9 + [[1, 2]], "label": LABEL}, None, "as many in each row"),
        ({"x": IDS, "label": [-1] * 10}, None, "are hidden"),
        ({"x": IDS[:1], "label": [0]}, None, "takes 2 at least"),
    ],
)
def test_what_is_unclear_or_unfit_is_said(tmp_path, held, said, words):
    made = rows(held, label=CLASSES) if "label" in held else rows(held)
    with pytest.raises(DataError, match=words):
        loaded(made, tmp_path, columns=said)


def test_what_can_not_be_loaded_and_what_is_not_installed_are_named(tmp_path, monkeypatch):
    spec = DataSpec(factory="datasets:x")
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="can't be loaded"):
        dataset_loaders(spec, tmp_path, ())
    monkeypatch.setattr(datasets, "__version__", "5.1.0")
    with pytest.raises(MissingExtra, match=r"needs `datasets` 5\.2 or later"):
        dataset_loaders(spec, tmp_path, ())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"modelspeed\[datasets\]"):
        dataset_loaders(spec, tmp_path, ())


def refused(folder, words, where=None):
    with pytest.raises(DataError, match=words):
        dataset_loaders(DataSpec(factory="datasets:x"), where or folder, ())


CSV = "x,label\n" + "1.0,0\n" * 10


def test_splits_of_a_folder_are_in_the_names_of_its_files(tmp_path):
    for name, rows in (("train-0.csv", 10), ("test/a.csv", 4), ("notes.csv", 3)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x,label\n" + "1.0,0\n" * rows)
    train, held = dataset_loaders(DataSpec(factory="datasets:x"), tmp_path, ())
    assert (len(train.dataset), len(held.dataset)) == (10, 4)
    (tmp_path / "more.json").write_text("[]")
    refused(tmp_path, "holds csv and json files; it must hold one of")


def test_images_of_a_folder_are_read_with_their_classes_and_others_are_not(tmp_path):
    (tmp_path / "outside.png").write_bytes(b"")
    for name in ("in/a/0.png", "in/a/1.png", "in/b/0.png", "in/b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    spec = DataSpec(factory="datasets:x", images=ImageSpec(size=4), share=0.5)
    train, held = dataset_loaders(spec, tmp_path / "in", ())
    assert next(iter(train))[0].shape == (2, 3, 4, 4) and len(held.dataset) == 2
    (tmp_path / "rows").mkdir()
    for place in (str(tmp_path / "outside.png"), "http://host/outside.png"):
        named = {"image": [{"path": place, "bytes": None}] * 10}
        made = datasets.Dataset.from_dict({**named, "label": LABEL})
        made = made.cast_column("image", datasets.Image())
        parquet.write_table(made.data.table, tmp_path / "rows" / "all.parquet")
        refused(tmp_path / "rows", r"outside\.png` leaves the folder")


def test_a_folder_reads_no_file_outside_of_it(tmp_path):
    inner = tmp_path / "in"
    inner.mkdir()
    (tmp_path / "outside.csv").write_text(CSV)
    readme = "configs:\n- config_name: default\n  data_files: ../outside.csv"
    (inner / "README.md").write_text(f"---\n{readme}\n---\n")
    refused(inner, "holds no files")
    (inner / "a.csv").symlink_to(tmp_path / "outside.csv")
    refused(inner, r"a\.csv` leaves the folder")
    rows({"x": IDS, "label": LABEL}).save_to_disk(tmp_path / "saved")
    state = tmp_path / "saved" / "state.json"
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    arrow.rename(tmp_path / "outside.arrow")
    state.write_text(state.read_text().replace(arrow.name, "../outside.arrow"))
    refused(tmp_path / "saved", r"outside\.arrow` leaves the folder")
    (inner / "dataset_dict.json").write_text('{"splits": ["../saved"]}')
    refused(inner, r"state\.json` leaves the folder")


def test_kinds_of_files_and_folders_elsewhere_are_no_names_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_text(CSV)
    (tmp_path / "own" / "er").mkdir(parents=True)
    (tmp_path / "own" / "er" / "train.csv").write_text(CSV)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for kind in ("csv", "json", "pandas", "imagefolder"):
        refused(tmp_path, f"`{kind}` is a kind of files", where=kind)
    refused(tmp_path, "can't be loaded: .*own/er", where="own/er")
