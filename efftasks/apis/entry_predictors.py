"""What predicts for the entries of a data set: a checkpoint's model or an exported file's, as the commands need it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from efftasks.apis.building import load
from efftasks.apis.exits import set_exit_threshold
from efftasks.apis.predicting import predict
from efftasks.engine.threads import FairThreads
from efftasks.imaging.crops import TOP_DOWN
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.predictor import Predictor
from efftasks.runtime.tile_settings import TileSettings
from efftasks.runtime.tiles import TiledPredictor
from efftasks.runtime.topdown import TopDownPredictor
from efftasks.structures.errors import UserError
from efftasks.structures.suffixes import is_checkpoint

__all__ = ["artifact_predictor", "entry_predictor"]

_TILES_AT_A_TIME = 8

Predict = Callable[[Sequence[dict[str, Any]]], "list[Prediction]"]


def entry_predictor(
    cfg: Any,
    model: str,
    backend: str | None = None,
    exit_threshold: float | None = None,
    tiles: TileSettings | None = None,
    width: float | None = None,
) -> tuple[Predict, Sequence[str]]:
    """What predicts for entries of a data set, and the classes of its labels.

    Args:
        cfg: the config, for checkpoints.
        model: a checkpoint, or an exported file.
        backend: the runtime of an exported file; None takes the one for its suffix.
        exit_threshold: of a network with an early exit; None takes the model's or the file's.
        tiles: how an exported file looks at large images; None for whole images.
        width: of a checkpoint of several widths; None for the largest.

    Raises:
        UserError: a runtime or tiles for a checkpoint, a width for an exported file, or the file cannot be run.
    """
    if is_checkpoint(model):
        if backend is not None:
            raise UserError(
                f"--backend: got {backend!r}, but {model} is a checkpoint, which PyTorch runs; leave it out"
            )
        if tiles is not None:
            raise UserError(f"--tiles: got {model}, a checkpoint, expected an exported file: efftasks export writes it")
        network = load(cfg, model, width=width)
        if exit_threshold is not None:
            set_exit_threshold(network, exit_threshold)
        threads = FairThreads(logging.getLogger("efftasks").info)

        def predict_entries(entries: Sequence[dict[str, Any]]) -> list[Prediction]:
            threads.look()
            return predict(network, entries)

        return predict_entries, network.dataset_meta["classes"]
    if width is not None:
        raise UserError(f"--width: got {width:g}, but {model} is an exported file, which has one width")
    return artifact_predictor(model, backend, exit_threshold, tiles)


def artifact_predictor(
    path: str | Path,
    backend: str | None = None,
    exit_threshold: float | None = None,
    tiles: TileSettings | None = None,
) -> tuple[Predict, Sequence[str]]:
    """As :func:`entry_predictor`, of an exported file.

    Args:
        path: the file.
        backend: its runtime; None takes the one for its suffix.
        exit_threshold: of a network with an early exit; None takes the file's.
        tiles: how it looks at large images; None for whole images.

    Top-down pose estimators look into the boxes that the entries have.

    Raises:
        UserError: the file cannot be run, or not on tiles.
    """
    loaded = Artifact(path, backend)
    if loaded.spec.task == TOP_DOWN:
        if tiles is not None:
            raise UserError(f"--tiles: got {path}, a model for {TOP_DOWN}, expected one that finds objects")
        crops = TopDownPredictor(loaded)
        return (
            lambda entries: [crops(entry["img_path"], [entry["box"]], [entry["label"]]) for entry in entries],
            crops.spec.classes,
        )
    artifact = Predictor(loaded, exit_threshold=exit_threshold)
    if tiles is not None:
        tiled = TiledPredictor(artifact, tiles)
        return lambda entries: tiled([entry["img_path"] for entry in entries], _TILES_AT_A_TIME), tiled.spec.classes
    return (
        lambda entries: artifact([entry["img_path"] for entry in entries], batch_size=len(entries)),
        artifact.spec.classes,
    )
