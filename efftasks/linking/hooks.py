"""Hooks of a config: one that is in both `default_hooks` and `custom_hooks` runs only once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from efftasks.linking.declared import bare_name, declared
from efftasks.linking.links import Links, Place
from efftasks.structures.errors import UserError

__all__ = ["hooks_of", "link_freeze", "link_hooks"]

# Configs of earlier versions had all hooks that run once in custom_hooks, and these two in every list.
_COMPLETE = {"EpochSeed", "ReportSkippedImages"}
_SWITCH_HOOK = "mmdet.PipelineSwitchHook"
# mmengine's default hooks; it accepts None for these names only.
_MMENGINE_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


def hooks_of(cfg: Config) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The configs of all hooks, each with its place."""
    default = ((("default_hooks", name), hook) for name, hook in (cfg.get("default_hooks") or {}).items())
    custom = ((("custom_hooks", i), hook) for i, hook in enumerate(cfg.get("custom_hooks") or ()))
    yield from ((place, hook) for place, hook in (*default, *custom) if isinstance(hook, dict))


def link_hooks(cfg: Config, links: Links) -> None:
    """Remove default hooks that are None or replaced by ``custom_hooks``.

    A custom hook replaces the default hook of its type if that must run only once, such as EMAHook. A ``custom_hooks``
    with both EpochSeed and ReportSkippedImages comes from an earlier version, where it was the complete list: it
    replaces all of these hooks and the pipeline switches.
    """
    custom = {_type_of(hook) for hook in cfg.get("custom_hooks") or ()}
    for name, hook in list((cfg.get("default_hooks") or {}).items()):
        if hook is None:
            if name not in _MMENGINE_HOOKS:
                links.remove(("default_hooks", name), "default_hooks")
        elif _is_replaced(_type_of(hook), custom):
            links.remove(("default_hooks", name), "custom_hooks")


def link_freeze(cfg: Config, links: Links) -> None:
    """Fill the hook of ``freeze``: names of parts of the model, or ``dict(parts=..., until=...)``.

    Raises:
        UserError: it has another form.
    """
    value = cfg.get("freeze")
    if not value:
        return
    stated = {"parts": value} if isinstance(value, (str, list, tuple)) else value
    parts = stated.get("parts") if isinstance(stated, dict) else None
    parts = [parts] if isinstance(parts, str) else parts
    is_list = isinstance(parts, (list, tuple)) and all(isinstance(part, str) for part in parts)
    if not (is_list and parts) or not set(stated) <= {"parts", "until"}:
        raise UserError(
            f"freeze: got {value!r}, expected names of parts of the model, as ('backbone', 'neck'), or "
            "dict(parts=('backbone',), until=0.3)"
        )
    hook = dict(type="Freeze", parts=list(parts), until=stated.get("until"))
    links.fill(("default_hooks", "freeze"), hook, "freeze")
    if cfg.get("find_unused_parameters") is None:
        links.fill(("find_unused_parameters",), True, "freeze")  # distributed training waits for all gradients


def _is_replaced(kind: str, custom: set[str]) -> bool:
    """Whether custom hooks of these types take the place of a default hook of type ``kind``."""
    is_complete = custom >= _COMPLETE
    if kind == _SWITCH_HOOK:
        return is_complete
    return bool(declared(kind, "runs_once")) and (is_complete or kind in custom)


def _type_of(hook: Any) -> str:
    return bare_name(hook.get("type") if isinstance(hook, dict) else type(hook))
