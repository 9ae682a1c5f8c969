"""Hooks of a config: one that is in both `default_hooks` and `custom_hooks` runs only once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from efftasks.linking.declared import bare_name
from efftasks.linking.links import Links, Place

__all__ = ["hooks_of", "link_hooks"]

_SINGLE_HOOKS = {"EpochSeed", "TrainingProgress", "ReportSkippedImages", "EMAHook", "RestartFromBest"}
# Configs of earlier versions had all of them in custom_hooks, and these two in every list.
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
    replaced = {*_SINGLE_HOOKS, _SWITCH_HOOK} if custom >= _COMPLETE else custom & _SINGLE_HOOKS
    for name, hook in list((cfg.get("default_hooks") or {}).items()):
        if hook is None and name not in _MMENGINE_HOOKS:
            links.remove(("default_hooks", name), "default_hooks")
        elif hook is not None and _type_of(hook) in replaced:
            links.remove(("default_hooks", name), "custom_hooks")


def _type_of(hook: Any) -> str:
    return bare_name(hook.get("type") if isinstance(hook, dict) else type(hook))
