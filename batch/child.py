"""The wrapper of each item's command: `python -m modelspeed.batch.child PARENT LIMIT COMMAND`.

It asks the system to end the item with its parent and to limit its memory (bytes, 0 for none), and
becomes the command.
"""

from __future__ import annotations

import os
import sys

from ..core.processes import die_with_parent, limit_memory


def main() -> None:
    parent, limit, *command = sys.argv[1:]
    die_with_parent(int(parent))
    limit_memory(int(limit))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
