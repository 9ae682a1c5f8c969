"""Packaging. Everything but the shipped configs and tools is declared in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("configs", "tools")


class BuildWithConfigs(build_py):
    """Put configs/ and tools/ into the wheel as efftasks/.mim/, where OpenMMLab's tools look for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a source tree is used as it is
            return
        for name in SHIPPED:
            target = Path(self.build_lib, "efftasks", ".mim", name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__", "docs"))


setup(cmdclass={"build_py": BuildWithConfigs})
