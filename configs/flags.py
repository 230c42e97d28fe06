"""Every value that the command line takes, and often a file too: its name, help and bound, once.

`MachineFlags` and `cli/load_flags.py` carry these as annotations of their fields, the models of
recipes and jobs files take description and bound from them. Standard library only, for `--help`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.bounds import BATCH as BATCH_BOUND
from ..core.bounds import DEVICE as DEVICE_BOUND
from ..core.bounds import PERCENTILE as PERCENTILE_BOUND
from ..core.bounds import SEED as SEED_BOUND
from ..core.bounds import THREADS as THREADS_BOUND
from ..core.bounds import Like, Within
from ..core.errors import UsageError

# The panels of `--help`, in this order.
TARGET_PANEL, MODEL_PANEL = "Target", "Model and data"
MACHINE_PANEL, OUTPUT_PANEL = "Machine", "Output"
PANELS = (TARGET_PANEL, MODEL_PANEL, MACHINE_PANEL, OUTPUT_PANEL)


@dataclass(frozen=True)
class Flag:
    """`description` is what a file's schema says, where `help` is too short or names flags."""

    option: str
    panel: str
    help: str
    bound: Within | Like | None = None
    description: str = ""
    metavar: str | None = None

    def check(self, value: object) -> None:
        """Raises UsageError where `value` is out of bounds; None is a flag that was not given."""
        if value is None or self.bound is None or not (meant := self.bound.unlike(value)):
            return
        shown = repr(value) if isinstance(value, str) else f"{value:g}"
        raise UsageError(f"`{self.option}` is {shown}; it must be {meant}.")

    @property
    def described(self) -> str:
        return self.description or f"{self.help[:1].upper()}{self.help[1:]}."


TARGET_MS = Flag("--target-ms", TARGET_PANEL, "latency that must be met, in ms",
                 Within(0, above=True))  # fmt: skip
TARGET_SPEEDUP = Flag(
    "--target-speedup", TARGET_PANEL, "alternative to --target-ms: times as fast as the original",
    Within(1, above=True), "Alternative to a latency: times as fast as the original here.",
)  # fmt: skip
FASTEST = Flag(
    "--fastest", TARGET_PANEL, "alternative to --target-ms: as fast as the accuracy limit allows",
    description="Alternative to a latency: as fast as the accuracy limit (`max_drop`) allows.",
)  # fmt: skip
MAX_DROP = Flag(
    "--max-drop", TARGET_PANEL, "largest accepted accuracy drop, such as 0.01", Within(0, 1),
    "Largest accepted drop of the metric, a fraction.",
)  # fmt: skip
PREFER = Flag(
    "--prefer", TARGET_PANEL,
    "target or accuracy: which one stands where both can't be had",
    description="Which one stands where no variant has both: `target` ships the most accurate "
    "that meets the target, `accuracy` the fastest within `max_drop`.",
)  # fmt: skip
PERCENTILE = Flag(
    "--percentile", TARGET_PANEL, "percentile of latency that counts", PERCENTILE_BOUND,
    "Percentile of latency that must meet the target.",
)  # fmt: skip
BATCH = Flag(
    "--batch", TARGET_PANEL, "examples per forward pass", BATCH_BOUND,
    "Examples per forward pass, in place of those in `inputs`.",
)  # fmt: skip

MODEL = Flag(
    "--model", MODEL_PANEL,
    "factory that builds the model: FILE.py:NAME, torchvision:NAME, timm:NAME",
    description="`FILE.py:NAME` of a function that returns the model, or a library's model "
    "such as `torchvision:resnet18`, `timm:resnet18`, `transformers:FOLDER`.",
)  # fmt: skip
DATA = Flag(
    "--data", MODEL_PANEL,
    "training and evaluation data: FILE.py:NAME, folder:DIR, arrays:FILE, datasets:NAME",
    description="`FILE.py:NAME` returning train and eval iterables of (inputs, targets), "
    "`folder:DIR` of images with one folder a class, `arrays:FILE.npz`, or `datasets:NAME` "
    "of Hugging Face's library (a folder, or OWNER/NAME/CONFIG of its hub).",
)  # fmt: skip
INPUTS = Flag(
    "--inputs", MODEL_PANEL,
    "example inputs, such as 1x3x224x224:float32 or ids=1x128:int64:0..999",
    description="Example inputs, such as `1x3x224x224:float32`.",
)  # fmt: skip
INPUT_SIZE = Flag(
    "--input-size", MODEL_PANEL, "run at 160 pixels (160x200: height x width) or tokens",
    description="Run at this size, such as `160` or `160x200`.",
)  # fmt: skip
CONFIG = Flag("--config", MODEL_PANEL, "recipe; found beside the checkpoint otherwise")
PRESET = Flag("--preset", MODEL_PANEL, "steps of a built-in recipe")
IGNORE = Flag(
    "--ignore", MODEL_PANEL, "leave out tensors whose names match; repeatable", metavar="REGEX",
    description="Regular expressions: tensors of the checkpoint whose names one is found in are "
    "left out.",
)  # fmt: skip
IMPORTS = Flag(
    "--import", MODEL_PANEL, "module that registers operators, imported first; repeatable",
    metavar="MODULE",
)  # fmt: skip
WITHOUT_DATA = Flag("--without-data", MODEL_PANEL,
                    "allow lossy steps although accuracy is unknown")  # fmt: skip
TRUST_PICKLE = Flag("--trust-pickle", MODEL_PANEL, "run the code a pickled checkpoint carries")
TRUST_CODE = Flag("--trust-code", MODEL_PANEL,
                  "run code that a recipe names although others may write it")  # fmt: skip

DEVICE = Flag("--device", MACHINE_PANEL, "cpu, cuda or cuda:N", DEVICE_BOUND,
              "`cpu`, `cuda` or `cuda:N`.")  # fmt: skip
THREADS = Flag("--threads", MACHINE_PANEL, "CPU threads", THREADS_BOUND)
AUTO_OR_THREADS = Flag("--threads", MACHINE_PANEL, "CPU threads; auto: fastest", THREADS_BOUND,
                       metavar="N|auto")  # fmt: skip
SEED = Flag("--seed", MACHINE_PANEL, "random seed", SEED_BOUND)
WORKERS = Flag("--workers", MACHINE_PANEL, "how many run at a time", Within(1))
RETRIES = Flag("--retries", MACHINE_PANEL, "new attempts after a crash", Within(0))
MEMORY_LIMIT = Flag("--memory-limit", MACHINE_PANEL, "most memory of one run, such as 4GB")
MINUTES = Flag("--minutes", MACHINE_PANEL, "time limit of one run", Within(0, above=True),
                "Time limit of one run in minutes.")  # fmt: skip
RAY = Flag("--ray", MACHINE_PANEL, "run on a Ray cluster: its address, or auto")
