"""The runtime from npm: fetched once, checked, and refused where it is another one."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from efftasks.export.page.npm_package import NpmPackage, cached, check_folder, download
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactFile

CONTENT = {"a.mjs": b"export {};", "a.wasm": b"\0asm"}


def pack(folder: Path, files: dict[str, bytes]) -> Path:
    """A package as npm packs them."""
    archive = folder / "toy-1.2.3.tgz"
    with tarfile.open(archive, "w:gz") as members:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            members.addfile(entry, io.BytesIO(content))
    return archive


def package_of(archive: Path) -> NpmPackage:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    files = tuple(ArtifactFile(n, hashlib.sha256(c).hexdigest(), len(c)) for n, c in CONTENT.items())
    return NpmPackage("toy", "1.2.3", f"sha512-{digest}", "dist", files)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """With one file that is not used, and one outside of the folder of the package."""
    files = {"package.json": b"{}", **{f"dist/{name}": content for name, content in CONTENT.items()}}
    return pack(tmp_path, {**files, "dist/large.map": b"not used", "../../evil": b"outside"})


@pytest.fixture
def npm(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that packs the archive, and notes what it was asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "npm"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\ncp {archive} "$6"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return script


def test_it_is_fetched_once_and_only_what_is_used_is_kept(npm, archive, tmp_path):
    package, cache = package_of(archive), tmp_path / "cache"
    assert cached(cache, package) is None
    folder = download(cache, package)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert cached(cache, package) == folder and list(cache.iterdir()) == [folder]
    (call,) = (npm.parent / "calls").read_text().splitlines()
    assert call.startswith("pack toy@1.2.3 --ignore-scripts ")
    assert not list(tmp_path.rglob("evil"))
    (folder / "a.wasm").write_bytes(b"cut")
    assert cached(cache, package) is None


def test_another_package_is_refused(npm, archive, tmp_path):
    package = package_of(archive)
    other = replace(package, integrity="sha512-" + base64.b64encode(bytes(64)).decode())
    with pytest.raises(WorkError, match=r"npm pack toy@1\.2\.3: got a file with the sha512 .*, expected AAAAAAAAAAAA"):
        download(tmp_path / "cache", other)
    missing = replace(package, files=(ArtifactFile("b.mjs", "0" * 64, 1),))
    with pytest.raises(WorkError, match=r"got a package without dist/b\.mjs"):
        download(tmp_path / "cache", missing)
    assert not list((tmp_path / "cache").iterdir())


def test_no_npm_and_no_network_are_said(npm, archive, tmp_path, monkeypatch):
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    with pytest.raises(WorkError, match=r"npm pack toy@1\.2\.3 failed \(npm error code ENOTFOUND\); .* --ort-web DIR"):
        download(tmp_path / "cache", package_of(archive))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"toy@1\.2\.3 comes from npm, which is not installed; .* --ort-web DIR"):
        download(tmp_path / "cache", package_of(archive))


def test_a_folder_of_the_user_is_checked(archive, tmp_path):
    package, folder = package_of(archive), tmp_path / "toy"
    (folder / "dist").mkdir(parents=True)
    with pytest.raises(UserError, match=r"--ort-web: .*toy has no package\.json of npm, expected .* toy@1\.2\.3"):
        check_folder(folder, package)
    (folder / "package.json").write_text(json.dumps({"name": "toy", "version": "1.2.4"}))
    with pytest.raises(UserError, match=r"has toy@1\.2\.4, expected toy@1\.2\.3: npm install toy@1\.2\.3"):
        check_folder(folder, package)
    (folder / "package.json").write_text(json.dumps({"name": "toy", "version": "1.2.3"}))
    with pytest.raises(UserError, match=r"a\.mjs: no such file"):
        check_folder(folder, package)
    for name, content in CONTENT.items():
        (folder / "dist" / name).write_bytes(content)
    assert check_folder(folder, package) == folder / "dist"
    (folder / "dist" / "a.wasm").write_bytes(b"\1asm")
    with pytest.raises(UserError, match=r"a\.wasm: got the SHA-256 "):
        check_folder(folder, package)
