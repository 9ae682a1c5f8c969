"""The values of a config as experiment trackers take them: without secrets and machine paths, nested or flat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

__all__ = ["flat", "portable"]

HIDDEN = "(hidden)"
_SECRET = re.compile(
    r"(^|_)(password|passwd|passphrase|pwd|secret|token|auth|authorization|credentials?|cookie|"
    r"(api|access|private|secret|account)_?key)(_|$)"
)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s.-]+")  # of a key, as in authToken and X-Auth-Token
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(?<=://)([^\s?#]+)[?#]\S*")  # signed addresses have their key there
_RECORD = "linked"  # of linking: which values were filled in


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config that may be sent to a server.

    Tuples become lists, and other objects than numbers and strings become text. Of absolute paths the last two names
    are left. Values of keys such as ``password`` and ``api_key``, and logins and queries in addresses, are hidden.
    """
    return {str(key): _portable(str(key), value) for key, value in config.items() if key != _RECORD}


def _portable(key: str, value: Any) -> Any:
    if _SECRET.search(_WORDS.sub("_", key).lower()) and not (value is None or isinstance(value, bool)):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(name): _portable(str(name), part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(key, part) for part in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _text(str(value))


def _text(value: str) -> str:
    text = _QUERY.sub(rf"\1?{HIDDEN}", _LOGIN.sub("", value)).removeprefix("file://")
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() and "\n" not in text:
            return "/".join(path.parts[1:][-2:]) + ("/" if text[-1] in "/\\" else "")
    return text


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values of a :func:`portable` config by dotted name, ``("model.backbone.type", "TimmBackbone")``.

    Lists of dicts are numbered; other lists, and empty dicts, are one value.
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
            value = {str(i): part for i, part in enumerate(value)}
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, str(value)
