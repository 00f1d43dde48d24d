"""What a client sends, read within limits: one image, several files, or vectors as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import HTTPException, Request
from numpy.typing import NDArray
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.types import Message

from historyad.data.datasets import open_source
from historyad.data.in_memory import from_table
from historyad.data.tables import Table
from historyad.deploy.service.batcher import QueueFullError
from historyad.deploy.service.limits import Limits
from historyad.errors import InputError
from historyad.kinds.kind import Kind

Files = list[tuple[str, bytes]]
Count = Callable[[int], None]  # is told of bytes as they come; QueueFullError for too many

# A parsed number takes up to 30 times the room that it has in JSON.
_MOST_JSON_BYTES = 4 * 2**20


def content_type(request: Request) -> str:
    """Return the body's media type in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_files(request: Request, limits: Limits, count: Count) -> Files:
    """Return the name and the content of each image that was sent.

    Raises HTTPException: 400 (not a form), 413 (too large), 415 (of another type), 422 (no file),
    503 (there is no room).
    """
    kind = content_type(request)
    request = _bounded(request, limits.max_body_bytes, count)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [("image", await request.body())]
    if kind != "multipart/form-data":
        raise HTTPException(
            415,
            f"cannot read '{kind}': send an image as image/* or application/octet-stream, several "
            "as multipart/form-data, or vectors as application/json",
        )
    try:
        async with request.form(max_files=limits.max_files, max_fields=limits.max_files) as form:
            files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            named = [await _named(file) for file in files]
    except FormParserError as error:
        raise HTTPException(400, f"not a form: {error}") from error
    if not named:
        raise HTTPException(422, "no file in the form: give parts that have a filename")
    return named


async def _named(file: UploadFile) -> tuple[str, bytes]:
    """Return a file that was sent, held once."""
    content = await file.read()
    await file.close()
    return file.filename or "image", content


async def read_vectors(
    request: Request, limits: Limits, count: Count, kind: Kind
) -> NDArray[np.float32]:
    """Return the vectors (N, F) of ``{"vectors": [[...], ...]}``, as a ``kind`` of them is held.

    Raises HTTPException: 400 (not JSON), 413 (too large), 422 (not such an object), 503 (there is
    no room).
    """
    most = min(limits.max_body_bytes, _MOST_JSON_BYTES)
    body = await _bounded(request, most, count).body()
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON ({error})") from error
    rows = content.get("vectors") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise HTTPException(422, 'give {"vectors": [[...], ...]}: a list of lists of numbers')
    if len(rows) > limits.max_files:
        raise HTTPException(413, f"{len(rows)} vectors are more than {limits.max_files}")
    return _as_vectors(rows, kind)


def _as_vectors(rows: list[list[Any]], kind: Kind) -> NDArray[np.float32]:
    """Return rows of numbers as float32 (N, F); InputError names the row that is none.

    Where ``kind`` knows of texts and of missing values, these may be among them: null is missing.
    All are looked at before there is an array: one text among them would make numpy reserve as
    much room for every value.
    """
    rows = [kind.numbered(row) for row in rows] if kind.may_miss else rows
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise InputError(
                f"the vectors differ in length: vector {i} has {len(row)} values, vector 0 has "
                f"{len(rows[0])}; give vectors of one length"
            )
        if others := set(map(type, row)) - {int, float}:
            kinds = ", ".join(sorted(kind.__name__ for kind in others))
            raise InputError(f"vector {i} holds {kinds}: give numbers alone")
    try:
        array = np.array(rows, np.float64)
    except OverflowError as error:
        raise InputError("a vector holds a number that is too large: scale it") from error
    return (from_table(Table(array), "vectors") if kind.may_miss else open_source(array)).samples


def _bounded(request: Request, limit: int, count: Count) -> Request:
    """Return the request with a body that ends in 413 once more than ``limit`` bytes came.

    It ends in 503 where ``count`` finds no room. Bytes are counted as they come, since a client may
    announce any length or none.
    """
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            await _discard(request, message, limit)
            reason = f"the body is larger than {limit:,} bytes: send less at a time"
            raise HTTPException(413, reason, {"Connection": "close"})
        try:
            count(len(message.get("body", b"")))
        except QueueFullError:
            await _discard(request, message, limit)
            close = {"Retry-After": "1", "Connection": "close"}
            raise HTTPException(503, "busy: try again", close) from None
        return message

    return Request(request.scope, receive)


async def _discard(request: Request, message: Message, most: int) -> None:
    """Read on for a while: a client that is cut off as it sends does not see the answer."""
    while most > 0 and message.get("more_body"):
        message = await request.receive()
        most -= len(message.get("body", b""))
