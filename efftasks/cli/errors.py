"""Exceptions as one sentence and an exit code: 2 for a wrong call or input, 1 for a failure during the work."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
from typing import Any, NamedTuple

from efftasks.structures.errors import UserError, WorkError

__all__ = ["Failure", "explain"]

USER, WORK, INTERRUPTED = 2, 1, 130

# Import name -> the extra that brings it. Runtimes and exporters state theirs themselves.
_EXTRAS: dict[str, str | None] = {
    **dict.fromkeys(
        ("torch", "mmengine", "mmcv", "mmdet", "mmseg", "pycocotools", "faster_coco_eval", "tensorboard", "yaml"),
        "train",
    ),
    **dict.fromkeys(("timm", "torchvision"), "timm"),
    **dict.fromkeys(("huggingface_hub",), "hub"),
    **dict.fromkeys(("numpy", "cv2", "tqdm")),  # the base installation
}
_UNREGISTERED = re.compile(r"(?P<type>[^\s'\"`]+) is not in the (?:(?P<scope>\w+)::)?(?P<registry>.+?) registry")
_UNTYPED = '`cfg` or `default_args` must contain the key "type"'
# mmengine puts this in front of the message of a constructor's exception; its maintained fork does not.
_WRAPPED = re.compile(r"^class `(?P<type>\w+)` in \S+: (?P<message>.*)$", re.DOTALL)
_SIBLINGS = ("mmdet", "mmseg")


class Failure(NamedTuple):
    """The message for the user, and the exit code."""

    sentence: str
    code: int


def explain(error: BaseException) -> Failure:
    """The message and the exit code for an exception of a command."""
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", INTERRUPTED)
    if isinstance(error, ModuleNotFoundError):
        return Failure(_missing_module(error), USER)
    message = _message(error)
    registry_message = _registry_message(error, message)
    if registry_message is not None:
        return Failure(registry_message, USER)
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return Failure(f"{error.filename}: no such file or folder", USER)
    if isinstance(error, (UserError, ValueError, FileNotFoundError)):
        return Failure(_one_line(message), USER)
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename is not None:
        return Failure(f"{error.filename}: is a file or lies below one, expected a folder", USER)
    if isinstance(error, IsADirectoryError) and error.filename is not None:
        return Failure(f"{error.filename}: is a folder, expected a file", USER)
    if isinstance(error, OSError) and error.filename is not None:
        return Failure(f"{error.filename}: {error.strerror}", WORK)
    if isinstance(error, (WorkError, RuntimeError, OSError)):
        return Failure(_one_line(message), WORK)
    kind = type(error).__name__
    return Failure(f"unexpected {kind}: {_one_line(message)} (run again with --debug for the traceback)", WORK)


def _missing_module(error: ModuleNotFoundError) -> str:
    from efftasks.export.exporters.table import EXPORTERS
    from efftasks.runtime.backends.table import BACKENDS

    name = (error.name or str(error)).split(".")[0]
    modules: list[tuple[str, str | None]]
    modules = [(module, exporter.extra) for exporter in EXPORTERS.values() for module in exporter.modules]
    modules += [(backend.module, backend.extra) for backend in BACKENDS.values()]
    extras = {**dict(reversed(modules)), **_EXTRAS}  # a module that several need, by the extra of the first
    if extras.get(name):
        return f"this command needs {name}: pip install 'efftasks[{extras[name]}]'"
    if name in extras:
        return f"efftasks needs {name}, and it is not installed: pip install efftasks"
    return f"there is no module named {error.name!r}" if error.name else _one_line(str(error))


def _message(error: BaseException) -> str:
    # str() of a KeyError is the repr of its key.
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if message.startswith("Caught ") and "Original Traceback" in message:  # from a worker of a data loader
        last = [line for line in message.splitlines() if line.strip()][-1]
        message = re.sub(r"^[\w.]+: ", "", last)
    wrapped = _WRAPPED.match(message)
    return f"{wrapped['type']}: {wrapped['message']}" if wrapped else message


def _one_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return "no reason was given"
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _registry_message(error: BaseException, message: str) -> str | None:
    """The message where an object of the config cannot be built; None for other errors."""
    if isinstance(error, (KeyError, TypeError, ValueError)):
        match = _UNREGISTERED.search(message)
        if match is not None:
            near = _nearest(match["type"], match["registry"])
            hint = f"did you mean {near!r}?" if near else "no registered name is like it"
            return f"type={match['type']!r} in the config: there is no such {match['registry']}; {hint}"
        if _UNTYPED in message:
            got = message.split("but got", 1)[-1].split("\n")[0].strip()
            return f"a part of the config that must be built has no 'type': {got}"
    if isinstance(error, TypeError) and _raised_in(error) == "build_from_cfg":
        # The call itself failed: its arguments, from the config, do not fit the signature.
        return "wrong arguments in the config: " + _one_line(message).replace(".__init__()", "")
    return None


def _raised_in(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name if trace is not None else ""


def _nearest(typed: str, registry: str) -> str | None:
    """The most similar registered name, in the registry of this name or a sibling of it."""
    scope, _, tail = typed.rpartition(".")
    best, best_score = None, 0.6
    for name in _registered(registry):
        other_scope, _, other_tail = name.rpartition(".")
        score = difflib.SequenceMatcher(None, tail.lower(), other_tail.lower()).ratio()
        score += 0.02 * (scope == other_scope)  # of equally similar names prefer that of the typed scope
        if score > best_score:
            best, best_score = name, score
    return best


def _registered(registry: str) -> list[str]:
    """All names of a registry as configs have them: with a scope, but for efftasks and mmengine."""
    import mmengine.registry as roots

    for sibling in _SIBLINGS:
        try:
            importlib.import_module(f"{sibling}.registry")
        except ImportError:
            continue  # no suggestions from it
    root = next((r for r in vars(roots).values() if isinstance(r, roots.Registry) and r.name == registry), None)
    if root is None:
        return []
    names = []
    for child in (*root.children.values(), root):
        prefix = "" if child.scope in ("efftasks", "mmengine") else f"{child.scope}."
        names += [prefix + name for name in _members(child)]
    return names


def _members(registry: Any) -> list[str]:
    with contextlib.suppress(ImportError):  # then only what is registered already
        registry.import_from_location()
    return list(registry.module_dict)
