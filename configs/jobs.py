"""`jobs.yaml`: many checkpoints with what each is to reach, read with every problem at once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from ..core.errors import ConfigError
from . import flags as f
from .base_settings import CONFIG, setting
from .discovery import RESERVED, is_pattern
from .load import text_of, validate
from .machine import RUNTIME
from .recipe import Prefer
from .references import regular_expression
from .sentences import as_text
from .yaml_tree import Tree, read_tree

_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([KMGT]?)i?B?", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of `512MB`, `4G` or `1000000` (powers of 1024). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if size < 1:
        raise ValueError("it must be a size such as `4GB` or `512MB`")
    return size


def _sized(text: str) -> str:
    parse_size(text)
    return text


def _text(value: object) -> object:
    # `memory_limit: 1000000` is a number to YAML.
    return str(value) if type(value) is int else value


def _plain_name(text: str) -> str:
    if not text or text in RESERVED or text.startswith(".") or re.search(r"[/\\\x00-\x1f]", text):
        raise ValueError("it must be a plain folder name, and not `logs`")
    return text


Size = Annotated[str, BeforeValidator(_text), AfterValidator(_sized)]


class JobSettings(BaseModel):
    """Settings that `tune` takes as flags, for one checkpoint or for all. Files are relative to
    this one."""

    model_config = CONFIG
    config: str | None = setting(f.CONFIG)
    preset: str | None = setting(f.PRESET)
    model: str | None = setting(f.MODEL)
    data: str | None = setting(f.DATA)
    inputs: str | None = setting(f.INPUTS)
    target_ms: float | None = setting(f.TARGET_MS)
    target_speedup: float | None = setting(f.TARGET_SPEEDUP)
    fastest: bool | None = setting(f.FASTEST)
    max_drop: float | None = setting(f.MAX_DROP)
    prefer: Prefer | None = setting(f.PREFER)
    input_size: Annotated[str | None, BeforeValidator(_text)] = setting(f.INPUT_SIZE)
    device: str | None = setting(f.DEVICE)
    threads: int | None = setting(f.THREADS)
    runtime: str | None = setting(RUNTIME)
    percentile: float | None = setting(f.PERCENTILE)
    batch: int | None = setting(f.BATCH)
    seed: int | None = setting(f.SEED)
    ignore: tuple[Annotated[str, AfterValidator(regular_expression)], ...] | None = setting(
        f.IGNORE
    )
    without_data: bool | None = setting(f.WITHOUT_DATA)

    @model_validator(mode="after")
    def _one_goal(self) -> JobSettings:
        if sum(bool(x) for x in (self.target_ms, self.target_speedup, self.fastest)) > 1:
            raise ValueError("it must set one of `target_ms`, `target_speedup` and `fastest`")
        return self


class JobEntry(JobSettings):
    """One checkpoint, or all that match a pattern such as `ckpts/*.pt`."""

    checkpoint: str = Field(min_length=1, description="File, or pattern with `*` and `?`.")
    name: Annotated[str, AfterValidator(_plain_name)] | None = Field(
        default=None, description="Folder of its artifact below `out`; the file's name otherwise."
    )


class JobsFile(BaseModel):
    """A whole `jobs.yaml`. `base` is where its files are."""

    model_config = CONFIG
    version: Literal[1] = Field(description="Format version of this file.")
    jobs: tuple[JobEntry, ...] = Field(min_length=1, description="The checkpoints.")
    defaults: JobSettings = Field(default=JobSettings(), description="For all jobs.")
    out: str | None = Field(default=None, description="Folder of all artifacts.")
    workers: int | None = setting(f.WORKERS)
    retries: int | None = setting(f.RETRIES)
    memory_limit: Size | None = setting(f.MEMORY_LIMIT)
    minutes: float | None = setting(f.MINUTES)


def load_jobs(path: Path) -> JobsFile:
    """Raises ConfigError with every problem of the file."""
    tree = read_tree(text_of(path), path.name)
    problems = list(tree.problems)
    jobs_file = validate(JobsFile, tree.value, (), tree, problems)
    if jobs_file is not None:
        _goals(jobs_file, tree, problems)
    if problems or jobs_file is None:
        unique = dict.fromkeys(sorted(problems))
        texts = [(line, text.replace("the recipe", "the jobs file")) for line, text in unique]
        raise ConfigError([f"`{path.name}:{line}`: {text}" for line, text in texts])
    return jobs_file


def _goals(jobs_file: JobsFile, tree: Tree, problems: list[tuple[int, str]]) -> None:
    names = Counter(job.name for job in jobs_file.jobs if job.name)
    for number, job in enumerate(jobs_file.jobs):
        line = tree.line(("jobs", number))
        if job.name and names[job.name] > 1:
            problems.append(
                (line, f"the name {as_text(job.name)} is given twice; keep one of them.")
            )
        if job.name and is_pattern(job.checkpoint):
            text = (
                f"{as_text(job.checkpoint)} may match several files, so it can't have one `name`."
            )
            problems.append((line, text))
