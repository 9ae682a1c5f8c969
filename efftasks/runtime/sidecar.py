"""Score thresholds in the sidecar of an artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from efftasks.structures.errors import WorkError
from efftasks.structures.spec import ArtifactSpec

__all__ = ["read_score_thresholds", "write_score_thresholds"]


def write_score_thresholds(path: str | Path, thresholds: Mapping[str, float]) -> Path:
    """Write the least score of each class into the sidecar of an artifact; the rest of it stays as it is.

    Args:
        path: of the artifact.
        thresholds: by name of the class; classes without one get the mean of the others.

    Returns:
        The path of the sidecar.

    Raises:
        UserError: there is no sidecar, or it is broken.
        WorkError: it cannot be written.
    """
    sidecar = Path(path).with_suffix(".json")
    spec = ArtifactSpec.load(sidecar)
    other = sum(thresholds.values()) / max(len(thresholds), 1)
    data = json.loads(sidecar.read_text(encoding="utf-8"))
    data["score_thresholds"] = [thresholds.get(name, other) for name in spec.classes]
    ArtifactSpec.from_json(data, origin=str(sidecar))
    draft = sidecar.with_name(f"{sidecar.name}.tmp")
    try:
        draft.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        draft.replace(sidecar)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise WorkError(f"{sidecar}: the score thresholds could not be written ({error.strerror})") from error
    return sidecar


def read_score_thresholds(path: str | Path) -> dict[str, float]:
    """The least score of each class that the sidecar of an artifact states, in the order of its labels; or none.

    Raises:
        UserError: the sidecar is broken.
    """
    sidecar = Path(path).with_suffix(".json")
    if not Path(path).is_file() or not sidecar.is_file():
        return {}
    try:
        data = json.loads(sidecar.read_bytes())
    except ValueError:
        return {}
    if not isinstance(data, dict) or not data.get("score_thresholds") or "outputs" not in data:
        return {}
    spec = ArtifactSpec.from_json(data, origin=str(sidecar))
    return dict(zip(spec.classes, spec.score_thresholds))
