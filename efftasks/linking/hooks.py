"""The hooks of a config: what `default_hooks` has and `custom_hooks` too runs once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from efftasks.linking.declared import bare_name
from efftasks.linking.links import Links, Place

__all__ = ["hooks_of", "link_hooks"]

# What the configs of this package had in custom_hooks before default_hooks had it. A list with EpochSeed, in a config
# on top of one of them, was the complete list of these.
_SEED = "EpochSeed"
_ONCE = (_SEED, "TrainingProgress", "ReportSkippedImages", "EMAHook", "RestartFromBest")
_SWITCH = "mmdet.PipelineSwitchHook"
# mmengine adds these where they are not None, and takes None for no other name.
_OF_MMENGINE = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


def hooks_of(cfg: Config) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The dicts of hooks, with their places."""
    default = ((("default_hooks", name), hook) for name, hook in (cfg.get("default_hooks") or {}).items())
    custom = ((("custom_hooks", i), hook) for i, hook in enumerate(cfg.get("custom_hooks") or ()))
    yield from ((place, hook) for place, hook in (*default, *custom) if isinstance(hook, dict))


def link_hooks(cfg: Config, links: Links) -> None:
    """Leave out default hooks whose place one of ``custom_hooks`` takes: the settings there count.

    That goes for hooks that make sense once, such as the average of weights. A list with EpochSeed was complete when it
    was written: the others of these hooks are left out as well. Hooks that are None are left out too.
    """
    custom = {_type_of(hook) for hook in cfg.get("custom_hooks") or ()}
    taken = {*_ONCE, _SWITCH} if _SEED in custom else custom & set(_ONCE)
    for name, hook in list((cfg.get("default_hooks") or {}).items()):
        if hook is None and name not in _OF_MMENGINE:
            links.remove(("default_hooks", name), "default_hooks")
        elif hook is not None and _type_of(hook) in taken:
            links.remove(("default_hooks", name), "custom_hooks")


def _type_of(hook: Any) -> str:
    return bare_name(hook.get("type") if isinstance(hook, dict) else type(hook))
