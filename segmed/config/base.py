"""The base of all sections, a frozen model, and the types of their fields."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

Auto = Literal["auto"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Fraction
Positive = Annotated[float, Field(gt=0)]
Length = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=1, le=65_536)]  # feature maps of a level: more fill any memory
Depth = Annotated[int, Field(ge=1, le=64)]  # repetitions of a level: more take any time
Spacing = tuple[Length, Length, Length]


T = TypeVar("T")


def known(value: T | Auto) -> T:
    """A value that planning has resolved.

    Raises:
        ValueError: it is still `auto`.
    """
    if isinstance(value, str) and value == "auto":
        raise ValueError("a value of the config is still 'auto': plan the experiment first")
    return value


class Section(BaseModel):
    """Base of all sections: frozen, a misspelt key is an error, and ~ in a path is the home folder, as in a shell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="after")
    @classmethod
    def _from_home(cls, value: Any) -> Any:
        if not isinstance(value, Path) or not value.parts or not value.parts[0].startswith("~"):
            return value
        try:
            return value.expanduser()
        except RuntimeError:  # nobody of that name: the folder may be called so
            return value
