"""HTTP requests answered by a stream: the status, headers and body of each, for any server."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
from collections.abc import AsyncIterable
from dataclasses import asdict, dataclass, field

from ..core.errors import Refused, UsageError, text_line
from ..core.model_io import Inputs
from .ladder.batching import check_single
from .ladder.ladder import How, Ladder
from .tensor_bodies import CONTENT_TYPE, most_bytes, read_inputs, wanted_inputs, write_outputs

LOG = logging.getLogger("modelspeed.serving")
RETRY_S = 1  # the shortest wait that HTTP can ask for, far longer than a queue
PROBE_MS = 5_000.0  # behind all that is urgent


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class HttpService:
    """A ladder and its stream behind one route: GET describes it, POST answers one example.

    A request has `slo_ms` milliseconds from when its head is here, or those that it brings.
    """

    def __init__(self, ladder: Ladder, slo_ms: float, max_queue: int = 1024) -> None:
        if ladder.example is None:
            raise UsageError("the ladder was made without an example of its inputs.")
        self.ladder, self.slo_ms = ladder, slo_ms
        self.row = ladder.example.map(lambda x: x[:1] if x.dim() else x)
        check_single((self.row.args, self.row.kwargs))  # not at each request
        self.stream = ladder.stream(slo_ms, max_queue=max_queue)
        self._most = most_bytes(self.row)

    async def answer(
        self, method: str, slo_ms: str | None, body: AsyncIterable[bytes]
    ) -> HttpAnswer:
        """The answer to one request. `slo_ms` as it was written; `body` in parts."""
        arrived = self.ladder.clock_ms()
        if method == "GET":
            return HttpAnswer(200, json.dumps(self.description()).encode())
        if method != "POST":
            return error_answer(405, "the route takes GET and POST.", {"Allow": "GET, POST"})
        try:
            deadline = arrived + (self.slo_ms if slo_ms is None else _number(slo_ms))
            whole = await self._whole(body)
            if whole is None:
                return error_answer(413, f"the body has more than {self._most:,} bytes.")
            inputs = read_inputs(whole, self.row)
        except UsageError as error:
            return error_answer(400, str(error))
        return await self._run(inputs, arrived, deadline)

    def description(self) -> dict[str, object]:
        """Inputs, rungs, and the counts of this process."""
        return {
            "inputs": wanted_inputs(self.row),
            "rungs": list(self.ladder.names),
            "slo_ms": self.slo_ms,
            "pid": os.getpid(),
            "stats": asdict(self.ladder.stats()),
        }

    async def check(self) -> None:
        """Raises where the ladder doesn't answer its own example any more, such as after an error
        of the GPU, and waits for ever where its thread hangs."""
        try:
            await self.stream(*self.row.args, slo_ms=PROBE_MS, **self.row.kwargs)
        except Refused as refused:
            if refused.reason == "closed":
                raise

    def close(self) -> None:
        """Answer what waits and take no more."""
        self.stream.close()

    async def _run(self, inputs: Inputs, arrived: float, deadline: float) -> HttpAnswer:
        left = deadline - self.ladder.clock_ms()
        try:
            request = self.stream.submit(*inputs.args, slo_ms=left, **inputs.kwargs)
        except UsageError as error:  # it is closed: another replica takes the next one
            return error_answer(503, str(error), reason="closed")
        try:
            body = write_outputs(await asyncio.wrap_future(request))
        except Refused as refused:
            return error_answer(503, str(refused), reason=refused.reason)
        except UsageError as error:
            return error_answer(500, str(error))
        except Exception as error:  # whatever the user's model raises
            LOG.warning("a request failed: %s", text_line(error))
            return error_answer(
                500, f"the model raised {type(error).__name__}: {text_line(error)}."
            )
        taken = self.ladder.clock_ms() - arrived
        return HttpAnswer(200, body, CONTENT_TYPE, _headers(request.how, taken))

    async def _whole(self, body: AsyncIterable[bytes]) -> bytes | None:
        """All parts; None as soon as they are larger than any request."""
        parts = bytearray()
        async for part in body:
            parts += part
            if len(parts) > self._most:
                return None
        return bytes(parts)


def error_answer(
    status: int, sentence: str, headers: dict[str, str] | None = None, reason: str = ""
) -> HttpAnswer:
    """The sentence as JSON. `reason`: of a refusal, after which a client may try again."""
    said = {"error": sentence} | ({"reason": reason} if reason else {})
    retry = {"Retry-After": str(RETRY_S)} if reason else {}
    return HttpAnswer(status, json.dumps(said).encode(), headers={**retry, **(headers or {})})


def _headers(how: How, total_ms: float) -> dict[str, str]:
    return {
        "Modelspeed-Rung": how.name,
        "Modelspeed-Predicted-Ms": f"{how.predicted_ms:.3f}",
        "Modelspeed-Taken-Ms": f"{how.taken_ms:.3f}",
        "Modelspeed-Total-Ms": f"{total_ms:.3f}",
        "Modelspeed-Slowdown": f"{how.slowdown:.3f}",
        "Modelspeed-Late-Expected": str(how.late_expected).lower(),
    }


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise UsageError(f"`slo_ms` is `{text[:40]}`; it must be a number of ms above 0.")
    return value
