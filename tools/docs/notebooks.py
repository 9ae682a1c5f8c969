"""The tutorials as notebooks: their scripts are the source, in jupytext's percent format."""

from __future__ import annotations

from pathlib import Path

import jupytext

from tools.docs.links import ROOT
from tools.docs.sources import Notebook

TUTORIALS = ROOT / "docs" / "tutorials"


def read(script: Path) -> jupytext.jupytext.NotebookNode:
    """The notebook of a script, without outputs."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def to_notebook(script: Path) -> str:
    """The text of the ``.ipynb`` file."""
    return jupytext.writes(read(script), fmt="ipynb")


def notebook_page(script: Path) -> str:
    """The notebook as a page: its text and code, and where to get it; its links are those of the script."""
    notebook = read(script)
    parts = []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "raw":  # what only the script runs
            parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        if i == 0:
            parts.append(f'<a href="{script.stem}.ipynb" download>Download the notebook</a>')
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


def notebooks() -> dict[Path, Notebook]:
    """Script of each tutorial -> its notebook."""
    return {script: Notebook(notebook_page(script), to_notebook(script)) for script in sorted(TUTORIALS.glob("*.py"))}
