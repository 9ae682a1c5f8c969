"""No class without a user: whatever is registered is named by a config or by a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.registry import Registry

import efftasks.registry

ROOT = Path(__file__).resolve().parents[2]
REGISTRIES = [value for name, value in vars(efftasks.registry).items() if name in efftasks.registry.__all__]


def words(folder: str) -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))
    return {word for text in texts for word in re.findall(r"\w+", text)}


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.name)
def test_registered_names_are_used(registry: Registry) -> None:
    registry.import_from_location()
    assert registry.module_dict, "a registry without members is not needed"
    unused = set(registry.module_dict) - words("configs") - words("tests")
    assert not unused


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.name)
def test_registered_classes_are_ours_and_listed(registry: Registry) -> None:
    # `locations` must name the very modules that register, or a lookup in a fresh process does not find them.
    for name, member in registry.module_dict.items():
        if member.__module__.startswith("tests."):
            continue  # a class of another test in this process
        assert member.__module__ in registry._locations, f"{name} is in {member.__module__}"
