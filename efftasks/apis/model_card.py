"""The card of a published model: what it is, what it was measured to do, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from efftasks.apis.zoo_table import collection_of_metafile
from efftasks.bench.table import to_markdown
from efftasks.config import shipped_configs
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec

__all__ = ["model_card", "read_benchmark"]

# Task of a description -> what the Hub calls it.
_PIPELINES = {
    "detection": "object-detection",
    "instance segmentation": "image-segmentation",
    "semantic segmentation": "image-segmentation",
    "multi-task": "object-detection",
    "pose": "keypoint-detection",
    "top-down pose": "keypoint-detection",
}
_COLUMNS = ("backend", "input", "mean ms", "p50 ms", "p90 ms", "peak RSS MB", "file MB")  # of a benchmark


def model_card(
    repo: str,
    file: Path,
    spec: ArtifactSpec,
    benchmark: Sequence[dict[str, Any]] = (),
    license: str | None = None,
    checkpoint: str | None = None,
) -> str:
    """The card as Markdown, with the Hub's metadata in front.

    Args:
        repo: ``user/name``.
        file: the exported file, for its name and suffix.
        spec: its description, as the sidecar has it.
        benchmark: rows of ``efftasks benchmark``; none where it was not timed.
        license: of the weights, as the Hub names it; None leaves it open.
        checkpoint: name of the checkpoint that lies beside it, if one does.
    """
    tags = ["efftasks", file.suffix.removeprefix("."), spec.task.replace(" ", "-")]
    head = dict(library_name="efftasks", pipeline_tag=_PIPELINES[spec.task], tags=tags)
    if license is not None:
        head["license"] = license
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=True)}---",
        f"# {repo.split('/')[-1]}",
        _what(file, spec),
        _method(spec),
        _quality(spec),
        _speed(benchmark),
        _use(repo, file, checkpoint),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def read_benchmark(path: str | Path) -> list[dict[str, Any]]:
    """The rows that ``efftasks benchmark --out`` wrote.

    Raises:
        UserError: the file has none.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
            raise ValueError("no rows")
    except ValueError as error:
        raise UserError(
            f"--benchmark: {path}: {error}, expected the .json that efftasks benchmark --out wrote"
        ) from error
    return rows


def _what(file: Path, spec: ArtifactSpec) -> str:
    shown = ", ".join(spec.classes[:20]) + (", ..." if len(spec.classes) > 20 else "")
    rows = {
        "task": spec.task,
        f"classes ({len(spec.classes)})": shown,
        "keypoints": ", ".join(spec.keypoints),
        "input": f"{spec.input.height} x {spec.input.width}",
        "precision": spec.precision,
        "file": f"{file.name}, {sum(part.bytes for part in spec.files) / 1e6:.1f} MB",
        "config": spec.source.get("config", ""),
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def _method(spec: ArtifactSpec) -> str:
    config = spec.source.get("config", "")
    if Path(config).stem not in shipped_configs():
        return ""
    collection = collection_of_metafile(Path(config).stem)
    paper = collection.get("Paper")
    lines = [f"{collection['Name']}: [{paper['Title']}]({paper['URL']})." if paper else f"{collection['Name']}."]
    if collection.get("Code"):
        lines.append(f"Its authors' code: {collection['Code']['URL']}.")
    return "## Method\n\n" + " ".join(lines)


def _quality(spec: ArtifactSpec) -> str:
    verify = spec.verify
    if not verify:
        return ""
    metrics = (verify.get("metrics") or {}).get("artifact") or {}
    text = "## Quality\n\n"
    if metrics:
        rows = [{"metric": key, "exported file": f"{value:.4f}"} for key, value in metrics.items()]
        text += "On the test data of the config:\n\n" + to_markdown(rows, list(rows[0])) + "\n\n"
    machine = verify.get("machine") or {}
    where = ", ".join(f"{key} {machine[key]}" for key in ("cpu", "os", "date") if key in machine)
    runtime = f" in {verify['runtime']}" if "runtime" in verify else ""
    return f"{text}Verified against its PyTorch model on {verify.get('images', 0)} images{runtime} ({where})."


def _speed(benchmark: Sequence[dict[str, Any]]) -> str:
    if not benchmark:
        return ""
    columns = [column for column in _COLUMNS if any(column in row for row in benchmark)]
    environment = benchmark[0].get("environment") or {}
    measured = ", ".join(f"{key} {value}" for key, value in environment.items())
    return f"## Speed\n\n{to_markdown(benchmark, columns)}\n\nMeasured on: {measured}."


def _use(repo: str, file: Path, checkpoint: str | None) -> str:
    folder = repo.split("/")[-1]
    lines = [
        "## Use",
        "",
        "```bash",
        'pip install "efftasks[hub]"',
        f"efftasks zoo pull {repo} --out {folder}",
        f"efftasks predict {folder}/{file.name} photo.jpg",
        "```",
        "",
        "```python",
        "from efftasks import Predictor",
        "",
        f'(prediction,) = Predictor("{folder}/{file.name}")("photo.jpg")',
        "print(prediction.boxes, prediction.scores, prediction.labels)",
        "```",
    ]
    if checkpoint is not None:
        lines += ["", f"`{checkpoint}` are the weights, to train or export further, and `config.py` is their config."]
    return "\n".join(lines)
