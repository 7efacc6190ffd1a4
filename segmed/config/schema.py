"""The JSON schema of each kind of experiment, for editors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.compare import CompareConfig

KINDS: dict[str, type[BaseModel]] = {
    "segmentation": SegmentationConfig,
    "classification": ClassificationConfig,
    "comparison": CompareConfig,
}


def json_schema(kind: str) -> dict[str, Any]:
    """Every field of an experiment with its type, its bounds and its description, as JSON schema 2020-12.

    Args:
        kind: `segmentation`, `classification` or `comparison`.
    """
    model = KINDS[kind]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
