"""The picture of the HTML report in the README: the report of an artifact, in headless Chromium.

    modelspeed demo --out out
    python docs/make_report_picture.py out

Rendered again from the record, so that it looks as reports look today.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from modelspeed.cli.finish import record_at
from modelspeed.reporting import html

PICTURE = Path(__file__).with_name("report.png")
SIZE = "1100,905"
MOST = 200_000  # bytes: it is in every clone
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--hide-scrollbars", "--virtual-time-budget=3000", f"--window-size={SIZE}",
         "--host-resolver-rules=MAP * ~NOTFOUND")  # fmt: skip


def main(artifact: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("this needs `chromium`; install it and try again")
    record = record_at(artifact)
    # A path of the machine that it was made on says nothing to a reader.
    record = replace(record, source=Path(record.source).name)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(html.render(record), encoding="utf-8")
        profile = f"--user-data-dir={Path(folder) / 'profile'}"
        shot = f"--screenshot={PICTURE}"
        command = [chromium, *FLAGS, profile, shot, page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    if PICTURE.stat().st_size > MOST:
        sys.exit(f"`{PICTURE}` has {PICTURE.stat().st_size} bytes; at most {MOST} are allowed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
