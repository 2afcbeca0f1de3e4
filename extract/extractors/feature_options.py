"""The words of ``--features`` and ``--set``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from featreg.datasets.base import UsageError


def parse_names(text: str) -> list[str]:
    """Features from ``a,b`` or ``a+b``, in order; duplicates are an error."""
    names: list[str] = []
    for word in text.split(","):
        head, equals, source = word.partition("=")  # a file name may contain a plus sign
        *others, last = head.split("+")
        names += [name.strip() for name in (*others, f"{last}{equals}{source}") if name.strip()]
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


def parse_model(word: str, schemes: Collection[str]) -> tuple[str, str, str] | None:
    """Name, scheme and source of ``NAME=SCHEME:SOURCE``; None for a request of another form."""
    name, equals, rest = word.partition("=")
    scheme, colon, source = (rest if equals else word).partition(":")
    if not equals and not (colon and scheme in schemes):
        return None
    if not (equals and name and source and scheme in schemes):
        raise UsageError(
            f"--features {word}: expected NAME=SCHEME:SOURCE with a name of your choice, such as "
            f"birds=onnx:model.onnx; the schemes are {', '.join(schemes)}"
        )
    return name, scheme, source


def parse_values(name: str, config: type, values: Mapping[str, str]) -> dict[str, Any]:
    """Settings of the feature `name` by key, for fields of the dataclass `config`."""
    hints = get_type_hints(config)
    keys = [field.name for field in fields(config)]
    for key in values:
        if key not in keys:
            known = ", ".join(keys) or "none"
            raise UsageError(f"--set {name}.{key}: no such setting; settings of {name}: {known}")
    return {
        key: parse_value(f"--set {name}.{key}={value}", hints[key], value)
        for key, value in values.items()
    }


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
