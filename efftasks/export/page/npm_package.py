"""ONNX Runtime Web, from its npm package: this package ships no binary of it. Standard library only."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactFile

__all__ = ["ORT_WEB", "NpmPackage", "cached", "check_folder", "download"]


@dataclass(frozen=True)
class NpmPackage:
    """A version of an npm package, and the files of it that are used.

    Attributes:
        name: as npm has it.
        version: the only one that is accepted: the page is tested with it.
        integrity: of the package file, as the registry states it.
        folder: of the files inside the package.
        files: with their digests.
    """

    name: str
    version: str
    integrity: str
    folder: str
    files: tuple[ArtifactFile, ...]

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


ORT_WEB = NpmPackage(
    name="onnxruntime-web",
    version="1.30.0",
    integrity="sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    folder="dist",
    files=(
        ArtifactFile(
            "ort.wasm.bundle.min.mjs", "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90", 73054
        ),
        ArtifactFile(
            "ort-wasm-simd-threaded.wasm", "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2", 14239897
        ),
    ),
)


def check_folder(folder: str | Path, package: NpmPackage) -> Path:
    """The folder with a package's files, inside a folder that the user names.

    Args:
        folder: the unpacked package, ``node_modules/onnxruntime-web`` for example.
        package: which one is expected.

    Raises:
        UserError: it is not that package, or of another version, or a file was changed.
    """
    description = Path(folder, "package.json")
    try:
        metadata = json.loads(description.read_text(encoding="utf-8"))
        got = f"{metadata['name']}@{metadata['version']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--ort-web: {folder} has no package.json of npm, expected the folder of {package}: npm install {package}"
        ) from error
    if got != str(package):
        raise UserError(f"--ort-web: {folder} has {got}, expected {package}: npm install {package}")
    inside = Path(folder, package.folder)
    for file in package.files:
        file.check(inside / file.name, str(package))
    return inside


def cached(cache: Path, package: NpmPackage) -> Path | None:
    """The folder of a package's files in the cache; None if they are not there, or not whole."""
    folder = cache / f"{package.name}-{package.version}"
    try:
        for file in package.files:
            file.check(folder / file.name, str(package))
    except UserError:
        return None
    return folder


def download(cache: Path, package: NpmPackage) -> Path:
    """Fetch a package with the user's npm, check it, and keep the files that are used.

    Args:
        cache: folder for them.
        package: which one.

    Returns:
        The folder of the files.

    Raises:
        UserError: npm is not installed.
        WorkError: npm failed, or gave another package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"{package} comes from npm, which is not installed; install Node.js, or copy the unpacked package here and "
            "name its folder by --ort-web DIR"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".npm-") as folder:
        command = [npm, "pack", str(package), "--ignore-scripts", "--silent", "--pack-destination", folder]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            reason = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
            raise WorkError(
                f"npm pack {package} failed ({reason}); without a network, name an unpacked package by --ort-web DIR"
            )
        _check_integrity(archives[0], package)
        unpacked = Path(folder, "files")
        _unpack(archives[0], unpacked, package)
        target = cache / f"{package.name}-{package.version}"
        target.mkdir(exist_ok=True)
        for file in package.files:
            os.replace(unpacked / file.name, target / file.name)
    return target


def _check_integrity(archive: Path, package: NpmPackage) -> None:
    algorithm, _, expected = package.integrity.partition("-")
    digest = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if digest != expected:
        raise WorkError(
            f"npm pack {package}: got a file with the {algorithm} {digest[:12]}..., expected {expected[:12]}...: the "
            "registry gave another package"
        )


def _unpack(archive: Path, target: Path, package: NpmPackage) -> None:
    """Write the files that are used into ``target``, and nothing else of the archive."""
    target.mkdir()
    with tarfile.open(archive) as members:
        for file in package.files:
            try:
                stream = members.extractfile(f"package/{package.folder}/{file.name}")
            except KeyError:
                stream = None
            if stream is None:
                raise WorkError(f"npm pack {package}: got a package without {package.folder}/{file.name}")
            with stream, (target / file.name).open("wb") as out:
                shutil.copyfileobj(stream, out)
            file.check(target / file.name, str(package))
