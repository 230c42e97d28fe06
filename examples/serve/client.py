"""Requests to a served ladder at a steady rate, and a count of what became of each.

python examples/serve/client.py http://127.0.0.1:8000/ --rate 50 --seconds 10
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import torch
from safetensors.torch import load, save

THREADS = 64  # requests on their way at most


def body_of(url: str) -> bytes:
    """Inputs as the ladder wants them; here random ones, in your program your own."""
    try:
        with urllib.request.urlopen(url) as answer:
            wanted = json.load(answer)["inputs"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: no ladder is served at `{url}`: {error}")
    return save({row["name"]: _random(row["shape"], row["dtype"]) for row in wanted})


def _random(shape: list[int], dtype: str) -> torch.Tensor:
    kind = getattr(torch, dtype)
    return torch.randn(shape).to(kind) if kind.is_floating_point else torch.ones(shape, dtype=kind)


def send(url: str, body: bytes) -> tuple[str, float]:
    """What became of one request, and how many ms it took."""
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
            outputs = load(answer.read())
            end = f"answered by {answer.headers['Modelspeed-Rung']}" if outputs else "empty"
    except urllib.error.HTTPError as error:  # 503: refused, try again after `Retry-After`
        end = f"error {error.code}: {_sentence(error)}"
    except OSError as error:
        end = f"no connection: {error}"
    return end, 1000.0 * (time.perf_counter() - began)


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError):  # not of the ladder, but of Serve
        return error.reason


def load_of(url: str, rate: float, seconds: float) -> list[tuple[str, float]]:
    """The ends of `rate` requests a second, sent whether or not the ones before are answered."""
    body, began, sent = body_of(url), time.perf_counter(), []
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            sent.append(pool.submit(send, url, body))
        return [future.result() for future in sent]


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests to a served ladder.")
    parser.add_argument("url")
    parser.add_argument("--slo-ms", type=float, help="of each request, instead of the server's")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    url = asked.url + (f"?slo_ms={asked.slo_ms:g}" if asked.slo_ms else "")
    ends = load_of(url, asked.rate, asked.seconds)
    for end, count in Counter(end for end, _ in ends).most_common():
        print(f"{count:6}  {end}, median {median(ms for e, ms in ends if e == end):.1f} ms")
    print(f"{len(ends):6}  sent")


if __name__ == "__main__":
    main()
