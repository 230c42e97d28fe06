from __future__ import annotations

import sys
from typing import Annotated

from . import options as o
from .errors import shown

FORMATS = ("console", "md", "html", "json", "csv")


def show(
    record: o.RecordAt,
    format: Annotated[str, o.output("--format", ", ".join(FORMATS))] = "console",
    debug: o.DebugOption = False,
) -> None:
    """Render a record again, in another form."""
    with shown(debug):
        from ..core.errors import UsageError
        from ..reporting import html, markdown, pareto
        from ..reporting import json as record_json
        from .finish import print_record, record_at
        from .ladder_finish import ladder_at, show_ladder

        if format not in FORMATS:
            raise UsageError(f"`--format` is `{format}`; it must be one of {', '.join(FORMATS)}.")
        if (ladder := ladder_at(record)) is not None:
            show_ladder(ladder, format)
            return
        loaded = record_at(record)
        if format == "console":
            print_record(loaded, False)
            return
        texts = {
            "md": markdown.render, "html": html.render, "json": record_json.dumps,
            "csv": pareto.render,  # all that was tried
        }  # fmt: skip
        sys.stdout.write(texts[format](loaded) + "\n")
