"""The memory that is free in a container."""

from pathlib import Path

import pytest

from efftasks.apis import free_memory as module
from efftasks.apis.free_memory import free_memory

GIB = 2**30


def container(folder: Path, limit: str, used: int, stat: str) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


@pytest.mark.parametrize(
    ("limit", "expected"), [(str(8 * GIB), 5 * GIB), (str(100 * GIB), 64 * GIB), ("max", 64 * GIB)]
)
def test_files_that_were_read_are_free(tmp_path, monkeypatch, limit, expected):
    container(tmp_path, limit, 7 * GIB, f"anon {3 * GIB}\ninactive_file {4 * GIB}\nactive_file 5\n")
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    monkeypatch.setattr(module, "_free_of_machine", lambda: 64 * GIB)
    assert free_memory("cpu") == expected


def test_the_first_version_of_control_groups_counts_the_groups_below(tmp_path, monkeypatch):
    (tmp_path / "memory").mkdir()
    for name, text in (
        ("limit_in_bytes", f"{8 * GIB}"),
        ("usage_in_bytes", f"{7 * GIB}"),
        ("stat", f"inactive_file 1\ntotal_inactive_file {2 * GIB}\n"),
    ):
        (tmp_path / "memory" / f"memory.{name}").write_text(text)
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    monkeypatch.setattr(module, "_free_of_machine", lambda: 64 * GIB)
    assert free_memory("cpu") == 3 * GIB


def test_a_container_without_a_stat_file_has_what_it_does_not_use(tmp_path, monkeypatch):
    container(tmp_path, str(8 * GIB), 7 * GIB, "")
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    assert free_memory("cpu") == GIB
