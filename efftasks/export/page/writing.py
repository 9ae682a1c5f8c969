"""Writing the page beside an exported file: as a folder for a static file server, or as a single file."""

from __future__ import annotations

import base64
import gzip
import re
import shutil
from pathlib import Path

from efftasks.structures.spec import ArtifactSpec

__all__ = ["ASSETS", "write_folder", "write_single_file"]

ASSETS = Path(__file__).parent / "assets"
RUNTIME_FOLDER = "ort"  # of the page, for the files of the runtime
_IMPORT = re.compile(r'^import .* from "\./(.+)";$', re.MULTILINE)
_LICENSE = "LICENSE.txt"  # of the runtime, whose npm package has none

# Modules import one another by URL, and a file has none: each gets one here, those it imports first.
_LOADER = """<script type="module">
      const urls = {};
      const imports = /(?<=^import .* from )"\\.\\/(.+)"(?=;$)/gm;
      for (const { id, textContent } of document.querySelectorAll("script[type='text/module']")) {
        const code = textContent.replace(imports, (_, name) => `"${urls[name]}"`);
        urls[id] = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      }
      await import(urls["app.js"]);
    </script>"""
_POLICY = "default-src blob: data:; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'unsafe-inline'"


def write_folder(folder: Path, runtime: Path, runtime_files: tuple[str, ...]) -> Path:
    """Write the page into the folder of an exported file.

    Args:
        folder: has ``model.json`` and what it names.
        runtime: folder of the runtime's files.
        runtime_files: their names.

    Returns:
        The page.
    """
    (folder / "js").mkdir(exist_ok=True)
    (folder / RUNTIME_FOLDER).mkdir(exist_ok=True)
    for module in sorted((ASSETS / "js").glob("*.js")):
        shutil.copyfile(module, folder / "js" / module.name)
    for name in runtime_files:
        shutil.copyfile(runtime / name, folder / RUNTIME_FOLDER / name)
    shutil.copyfile(ASSETS / RUNTIME_FOLDER / _LICENSE, folder / RUNTIME_FOLDER / _LICENSE)
    for name in ("style.css", "index.html"):  # the page last: it is whole when it is there
        shutil.copyfile(ASSETS / name, folder / name)
    return folder / "index.html"


def write_single_file(folder: Path, spec: ArtifactSpec, runtime: Path, runtime_files: tuple[str, ...]) -> Path:
    """Write the page with all that it reads inside, so that it can be opened as a file.

    Args:
        folder: has ``model.json`` and the files of ``spec``.
        spec: the description in ``model.json``.
        runtime: folder of the runtime's files.
        runtime_files: their names.

    Returns:
        The page.
    """
    files = {name: folder / name for name in ("model.json", *(file.name for file in spec.files))}
    files |= {f"{RUNTIME_FOLDER}/{name}": runtime / name for name in runtime_files}
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    style = (ASSETS / "style.css").read_text(encoding="utf-8")
    license_text = (ASSETS / RUNTIME_FOLDER / _LICENSE).read_text(encoding="utf-8")
    scripts = [
        *(f'<script type="text/module" id="{name}">\n{code}</script>' for name, code in _modules()),
        *(f'<script type="application/gzip" id="file:{name}">{_pack(path)}</script>' for name, path in files.items()),
        _LOADER,
    ]
    for pattern, text in (
        (r"<!doctype html>\n", f"<!doctype html>\n<!--\nThe embedded runtime:\n{license_text}-->\n"),
        (r'(?<=Policy" content=")[^"]*', _POLICY),
        (r'<link rel="stylesheet" [^>]*>', f"<style>\n{style}</style>"),
        (r"(?s)<footer.*</footer>\n", ""),
        (r'<script src="js/opened_as_file.js"></script>\n *', ""),
        (r'<script type="module" src="js/app.js"></script>', "\n".join(scripts)),
    ):
        before, after = re.split(pattern, page)  # each is there once
        page = f"{before}{text}{after}"
    target = folder / "index.html"
    target.write_text(page, encoding="utf-8")
    return target


def _modules() -> list[tuple[str, str]]:
    """Names and code of the page's modules, each after those that it imports."""
    ordered: dict[str, str] = {}

    def add(name: str) -> None:
        code = (ASSETS / "js" / name).read_text(encoding="utf-8")
        for imported in _IMPORT.findall(code):
            if imported not in ordered:
                add(imported)
        ordered[name] = code

    add("app.js")
    return list(ordered.items())


def _pack(path: Path) -> str:
    """Base64 of gzip."""
    return base64.b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode()
