"""The words of ``--features`` and ``--set``."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from featreg.datasets.base import UsageError


def parse_names(text: str) -> list[str]:
    """Feature names from ``a,b`` or ``a+b``, in order; duplicates are an error."""
    names = [name.strip() for name in text.replace("+", ",").split(",") if name.strip()]
    if not names:
        raise UsageError(
            f"--features {text!r}: expected one or more features, such as vggish,openl3"
        )
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--features: {name} is given twice")
    return names


def parse_settings(assignments: Sequence[str]) -> dict[str, dict[str, str]]:
    """Parse strings ``FEATURE.KEY=VALUE`` to ``{feature: {key: value}}``."""
    settings: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        target, equals, value = assignment.partition("=")
        feature, dot, key = target.partition(".")
        if not (equals and dot and key):
            raise UsageError(
                f"--set {assignment}: expected FEATURE.KEY=VALUE, such as openl3.content_type=env"
            )
        settings.setdefault(feature, {})[key] = value
    return settings


def parse_value(option: str, kind: Any, text: str) -> Any:
    """The value of type `kind` that `text` denotes; `option` begins the message of an error."""
    if get_origin(kind) in (UnionType, Union):  # optional values are X | None
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if str(choice) == text:
                return choice
        raise UsageError(f"{option}: expected one of {', '.join(map(str, get_args(kind)))}")
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{option}: expected true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{option}: expected a {kind.__name__}") from None
