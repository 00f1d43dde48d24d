"""The shape of what ``POST /score`` takes and returns, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Verdict(BaseModel):
    """One sample: the three figures, or the error that its content gave."""

    name: str = Field(description="Name of the file, or number of the vector.")
    anomaly_score: float | None = Field(None, description="About -0.8 normal, +1 anomalous.")
    p_value: float | None = Field(None, description="Share of normal inputs at least as odd.")
    is_anomalous: bool | None = Field(None, description="anomaly_score > threshold.")
    map: str | None = Field(None, description="PNG as a data: URL, where it was asked for.")
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
