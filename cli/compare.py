from __future__ import annotations

import json as json_text
import sys

from . import options as o
from .errors import shown


def compare(
    a: o.RecordAt,
    b: o.RecordAt,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Set two records or artifacts side by side."""
    with shown(debug):
        from rich.console import Console

        from ..reporting.comparison import comparison_table as compare_records
        from ..reporting.console import print_table
        from .finish import record_at

        table = compare_records(record_at(a), record_at(b))
        if json:
            rows = {name: {"a": x, "b": y} for name, x, y in table.rows}
            sys.stdout.write(json_text.dumps({"finding": table.title, "rows": rows}) + "\n")
        else:
            print_table(table, Console())
