"""The HTML report in a real browser: charts drawn, nothing leaves the page."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from modelspeed.reporting import html
from sample_record import record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--virtual-time-budget=3000", "--window-size=1100,1600",
         "--disable-features=NetworkTimeServiceQuerying",
         "--host-resolver-rules=MAP * ~NOTFOUND"]  # fmt: skip


def browse(tmp_path: Path, *flags: str, text: str = "") -> str:
    page = tmp_path / "report.html"
    page.write_text(text or html.render(record()), encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run([str(CHROMIUM), *FLAGS, profile, *flags, page.as_uri()],
                          capture_output=True, text=True, timeout=120, check=True)  # fmt: skip
    return done.stdout


def page_requests(log: Path) -> set[str]:
    """Network addresses that the page asked for; the browser's own services have no initiator."""
    events = [e.get("params", {}) for e in json.loads(log.read_text())["events"]]
    asked = {e["url"] for e in events if str(e.get("initiator", "")).startswith(("file", "null"))}
    return {url for url in asked if url.startswith(("http:", "https:", "ws:"))}


def colors(png: Path) -> int:
    """Distinct bytes in the unpacked image: 1 or 2 for a blank page."""
    content, at, packed = png.read_bytes(), 8, b""
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        packed += content[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    return len(set(zlib.decompress(packed)))


@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason="headless Chromium is not installed")
def test_the_charts_are_drawn_and_no_request_leaves_the_page(tmp_path):
    log = tmp_path / "net.json"
    dom = browse(tmp_path, "--dump-dom", f"--log-net-log={log}")
    assert 'data-charts="3"' in dom
    assert dom.count('data-drawn="true"') == 3
    assert "alert(1)</script>.pt" not in dom.replace("&lt;", "<").split("<h2>")[0].split("<dl>")[0]
    assert not page_requests(log)
    # The same look at a page that does ask for something, so that the check can fail.
    browse(
        tmp_path, "--dump-dom", f"--log-net-log={log}", text="<img src='http://a.invalid/x.png'>"
    )
    assert page_requests(log) == {"http://a.invalid/x.png"}
    browse(tmp_path, f"--screenshot={tmp_path / 'shot.png'}")
    assert colors(tmp_path / "shot.png") > 20


def test_names_from_the_user_are_escaped_and_data_cannot_end_its_script():
    page = html.render(record())
    assert "<script>alert(1)" not in page
    assert "http-equiv" in page and "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
