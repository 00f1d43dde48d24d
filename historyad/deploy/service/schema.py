"""The shape of what ``POST /score`` takes and returns, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Objection(BaseModel):
    """A view that finds a sample rare: 0 is typical, one normal sample in twenty exceeds 1."""

    view: str
    value: float


class Normal(BaseModel):
    """A normal image that a sample was compared with."""

    name: str
    picture: str = Field(description="A small PNG or JPEG as a data: URL.")


class Verdict(BaseModel):
    """One sample: the three figures, or the error that its content gave."""

    name: str = Field(description="Name of the file, or number of the vector.")
    anomaly_score: float | None = Field(None, description="About -0.8 normal, +1 anomalous.")
    p_value: float | None = Field(None, description="Share of normal inputs at least as odd.")
    is_anomalous: bool | None = Field(None, description="anomaly_score > threshold.")
    map: str | None = Field(None, description="PNG as a data: URL, where it was asked for.")
    against: list[Objection] | None = Field(None, description="Views that find it rare.")
    near: list[Normal] | None = Field(None, description="Normal images nearest to it.")
    error: str | None = None


class Answer(BaseModel):
    """What ``POST /score`` returns."""

    threshold: float
    false_positive_rate: float
    results: list[Verdict]


_BINARY = {"type": "string", "format": "binary"}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_FORM = {"type": "object", "properties": {"files": {"type": "array", "items": _BINARY}}}
_VECTORS = {
    "type": "object",
    "required": ["vectors"],
    "properties": {"vectors": {"type": "array", "items": _NUMBERS}},
}
REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "multipart/form-data": {"schema": _FORM},
            "application/json": {"schema": _VECTORS},
        },
    }
}
