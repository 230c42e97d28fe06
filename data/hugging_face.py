"""`datasets:NAME`: a data set of Hugging Face's library, from its hub, a folder or `save_to_disk`.

Its features say which column is what; where they leave it open, the recipe says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from torch import Tensor

from ..configs.recipe import DataSpec, InputSpec
from ..core.errors import DataError, MissingExtra, first_line
from ..core.extras import extra
from .arrays import Examples
from .image_folder import EVALUATION, TRAINING, Images
from .loaders import Loaders, loaders, split_indices
from .local_files import Split, load_folder
from .preprocessing import Preprocessing

TARGETS = ("label", "labels", "target", "targets", "y")
TOKENS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
NEEDED = (5, 2)  # earlier ones may run a Python file of the data set, or unpickle one


@dataclass(frozen=True)
class Columns:
    """The inputs by the keyword they are passed as (`""` by place), and the target."""

    inputs: dict[str, str]
    target: str


class Row(NamedTuple):
    """Where an image is."""

    number: int
    column: str

    def __str__(self) -> str:
        return f"{self.column}[{self.number}]"


def dataset_loaders(spec: DataSpec, where: Path | str, inputs: tuple[InputSpec, ...]) -> Loaders:
    """`where`: a folder, or NAME or OWNER/NAME of the hub, perhaps with `/CONFIG`.

    Raises DataError where it can't be loaded or its columns are not clear, MissingExtra.
    """
    shown = f"`datasets:{where}`"
    train, evaluation = _splits(shown, _loaded(shown, where))
    columns = _columns(shown, train.features, spec, inputs)
    if evaluation is None:
        rest, out = split_indices(len(train), spec.share, shown)
        train, evaluation = train.select(rest), train.select(out)
    parts = [_part(shown, part, columns, spec, inputs) for part in (train, evaluation)]
    return loaders(parts[0], parts[1], spec.batch)


def _loaded(shown: str, where: Path | str) -> Split | Mapping[str, Split]:
    library = extra("datasets", "datasets:NAME")
    if tuple(map(int, library.__version__.split(".")[:2])) < NEEDED:
        raise MissingExtra(
            f"{shown} needs `datasets` {'.'.join(map(str, NEEDED))} or later, this is "
            f"{library.__version__}: `pip install -U 'modelspeed[datasets]'`."
        )
    library.disable_progress_bars()  # they would run into ours
    try:
        if isinstance(where, Path):
            return load_folder(library, where, shown)
        return _from_hub(library, where, shown)
    except DataError:
        raise
    except Exception as error:  # of pyarrow, fsspec, the hub ...
        raise DataError(f"{shown} can't be loaded: {first_line(error)}") from error


def _from_hub(library: ModuleType, where: str, shown: str) -> Split | Mapping[str, Split]:
    owner, _, rest = where.partition("/")
    name, _, config = rest.partition("/")
    if not name and find_spec(f"{library.__name__}.packaged_modules.{owner}"):
        # The library would read whatever files of that kind the working folder has.
        raise DataError(
            f"{shown}: `{owner}` is a kind of files to `datasets`, no data set; name a folder, "
            "or OWNER/NAME of the hub."
        )
    # Said so, it is not looked for in the working folder.
    place = f"hf://datasets/{owner}/{name}" if name else f"hf://datasets/{owner}"
    loaded: Split | Mapping[str, Split] = library.load_dataset(place, config or None)
    return loaded


def _splits(shown: str, loaded: Split | Mapping[str, Split]) -> tuple[Split, Split | None]:
    """Splits to train on and to evaluate on; None if the second is to be taken from the first."""
    if not isinstance(loaded, Mapping):
        return loaded, None
    train = next((loaded[n] for n in TRAINING if n in loaded), None)
    evaluation = next((loaded[n] for n in EVALUATION if n in loaded), None)
    if train is not None and evaluation is not None:
        return train, evaluation
    if len(loaded) == 1:
        return next(iter(loaded.values())), None
    raise DataError(
        f"{shown} has the splits {_listed(loaded)}; it must have `train` and "
        "`validation` or `test`, or a single split, which is divided."
    )


def _columns(
    shown: str, features: Mapping[str, object], spec: DataSpec, takes: tuple[InputSpec, ...]
) -> Columns:
    said = spec.columns
    asked = [*(said.inputs if said else ()), *([said.target] if said and said.target else [])]
    if strange := next((n for n in asked if n not in features), None):
        raise DataError(
            f"`data.columns` names `{strange}`; {shown} has the columns {_listed(features)}."
        )
    target = said.target if said and said.target else _target(shown, features)
    rest = {n: f for n, f in features.items() if n != target}
    names = said.inputs if said and said.inputs else _inputs(shown, rest, takes)
    if len(names) > 1 and (image := next((n for n in names if _is_image(features[n])), None)):
        raise DataError(
            f"{shown}: `{image}` is an image, which must be the only input; what takes more needs "
            "a function, `FILE.py:NAME`."
        )
    if len(names) == 1:
        return Columns({(takes[0].name if takes else None) or "": names[0]}, target)
    return Columns({name: name for name in names}, target)


def _target(shown: str, features: Mapping[str, object]) -> str:
    classes = [n for n, f in features.items() if hasattr(f, "names")]
    known = classes if len(classes) == 1 else [n for n in TARGETS if n in features]
    if not known:
        raise DataError(
            f"{shown} has the columns {_listed(features)}; say which one is the target: "
            "`data: {columns: {target: NAME}}`."
        )
    return known[0]


def _inputs(shown: str, rest: Mapping[str, object], takes: tuple[InputSpec, ...]) -> Sequence[str]:
    """Columns with the names of the model's inputs, else the image, else tokens, else the one
    array."""
    wanted = [t.name for t in takes if t.name]
    if wanted and all(name in rest for name in wanted):
        return wanted
    images = [n for n, f in rest.items() if _is_image(f)]
    names = images or [n for n in TOKENS if n in rest]
    texts = [n for n, f in rest.items() if "string" in str(getattr(f, "dtype", ""))]
    if not names and texts:
        raise DataError(
            f"{shown}: `{texts[0]}` is text, which no model takes. Tokenize it as training did, "
            f"write the result ({_listed(TOKENS[:2])} ...) with `save_to_disk` and name its folder."
        )
    names = names or [n for n, f in rest.items() if _is_numeric(f)]
    if not names or (len(names) > 1 and names[0] not in TOKENS):
        raise DataError(
            f"{shown} has the columns {_listed(rest)} beside the target; say which are the "
            "inputs: `data: {columns: {inputs: [NAME]}}`."
        )
    return names


def _part(
    shown: str, part: Split, columns: Columns, spec: DataSpec, takes: tuple[InputSpec, ...]
) -> Images[Row] | Examples:
    targets = _tensor(shown, part, columns.target)
    if hasattr(part.features[columns.target], "names") and bool((targets < 0).any()):
        raise DataError(f"{shown}: some of `{columns.target}` are hidden (-1); use another split.")
    names = list(columns.inputs.values())
    if not _is_image(part.features[names[0]]):
        inputs = {key: _tensor(shown, part, name) for key, name in columns.inputs.items()}
        return Examples(inputs, targets, list(range(len(targets))))
    labels = list(targets) if targets.is_floating_point() else targets.tolist()
    items = [(Row(i, names[0]), label) for i, label in enumerate(labels)]
    samples = part.select_columns(names)
    pixels = Preprocessing(spec.images, takes, shown)
    return Images(items, lambda row: samples[row.number][row.column], pixels)


def _tensor(shown: str, part: Split, name: str) -> Tensor:
    """A whole column: float32, whole numbers as int64. Nested images would be opened unseen."""
    known = _is_numeric(part.features[name]) or _is_image(part.features[name])
    try:
        values = part.select_columns([name]).with_format("torch")[:][name] if known else None
    except Exception as error:  # of pyarrow and numpy
        raise DataError(f"{shown}: `{name}` can't be read: {first_line(error)}") from error
    if not isinstance(values, Tensor):
        raise DataError(
            f"{shown}: `{name}` must be numbers with as many in each row (tokens: "
            '`padding="max_length"`); it is not.'
        )
    return values


def _is_image(feature: object) -> bool:
    return type(feature).__name__ == "Image"


def _is_numeric(feature: object) -> bool:
    while isinstance(feature, list) or hasattr(feature, "feature"):  # a list of them
        feature = feature[0] if isinstance(feature, list) else feature.feature
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "float", "bool"))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{n}`" for n in islice(names, 12)) or "none"
