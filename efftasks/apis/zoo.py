"""Published checkpoints by name: fetched, converted, exported, and kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.config import Config

from efftasks.apis.converting import read_published, write_published
from efftasks.apis.export_settings import ExportSettings
from efftasks.apis.exporting import export
from efftasks.config import shipped_configs
from efftasks.datasets.shapes import write_shapes
from efftasks.models.backbones.base import build_backbone
from efftasks.structures.errors import UserError, WorkError
from efftasks.zoo.cache import artifact_file, check_digest, checkpoint_file, one_at_a_time, record_digest
from efftasks.zoo.catalog import PREFIX, Entry, catalog, find, find_model, is_name
from efftasks.zoo.fetching import address, fetch

__all__ = ["config_and_checkpoint", "local_checkpoint", "published_artifact", "published_checkpoint", "resolve_names"]

_SCENES = 4  # that an exported file is verified on
_SIDE = 640  # of them, in pixels


def published_checkpoint(name: str, new_digest: bool = False) -> Path:
    """The converted checkpoint of a name; the first time it is fetched, its digest checked, and every tensor mapped.

    It has the names and category ids of its classes, so that trainings that start from it know them.

    Args:
        name: such as ``dfine-n-coco``, with or without ``zoo:``.
        new_digest: fetch it again, and record the digest that its file has now; what is here stays until that is done.

    Raises:
        UserError: there is no such name.
        WorkError: it cannot be fetched, is another file than before, or not every tensor has its place.
    """
    entry = find(name)
    target = checkpoint_file(entry)
    if target.is_file() and not new_digest:
        return target
    with one_at_a_time(entry) as folder:
        if target.is_file() and not new_digest:  # another process was first
            return target
        source, url = folder / f"fetched-{entry.file}", address(entry.url, entry.file)
        if new_digest or not source.is_file():
            fetch(url, source, entry.name)
        digest = check_digest(entry, source, new_digest)
        try:
            if entry.backbone:
                _keep(entry, source, target)
            else:
                write_published(read_published(entry.family, source, entry.config), target)
        except UserError as error:
            raise WorkError(f"{entry.name}: {url} is not what was expected, so it was removed: {error}") from error
        finally:
            source.unlink(missing_ok=True)
        record_digest(entry, digest)
        artifact_file(entry).with_suffix(".json").unlink(missing_ok=True)  # of an earlier checkpoint
    return target


def published_artifact(name: str, new_digest: bool = False) -> Path:
    """The exported file of a name; the first time it is made of :func:`published_checkpoint`, and verified.

    There are no data of its config on most machines, so it is verified on scenes of the built-in set.

    Args:
        name, new_digest: as of :func:`published_checkpoint`.

    Raises:
        UserError, WorkError: as :func:`published_checkpoint`, or the file does not agree with its model.
    """
    entry = find_model(name)
    target = artifact_file(entry)
    checkpoint = published_checkpoint(name, new_digest)
    if target.is_file() and target.with_suffix(".json").is_file():
        return target
    with one_at_a_time(entry) as folder:
        if target.is_file() and target.with_suffix(".json").is_file():
            return target
        with tempfile.TemporaryDirectory(dir=folder, prefix=".scenes-") as scenes:
            images = write_shapes(Path(scenes, "shapes"), train=1, val=_SCENES, size=_SIDE) / "images" / "val"
            export(entry.config, checkpoint, folder, ExportSettings(images=images, num_images=_SCENES))
    return target


def config_and_checkpoint(config: str, checkpoint: str | None) -> tuple[str, str]:
    """What ``export`` takes: a config and a checkpoint, or a name, which has both.

    Args:
        config: path or name of a config; or a name of the zoo, whose config it is if there is a checkpoint.
        checkpoint: a file, or a name with ``zoo:`` in front; None if ``config`` is a name of the zoo.

    Raises:
        UserError: the checkpoint is missing, or there is no such name.
    """
    if checkpoint is None:
        if not is_name(config) or (config in shipped_configs() and config not in catalog()):
            raise UserError(f"{config}: got it alone, expected a checkpoint after the config")
        return find_model(config).config, str(published_checkpoint(config))
    if is_name(config) and config.removeprefix(PREFIX) in catalog():
        config = find_model(config).config
    return config, str(local_checkpoint(checkpoint))


def local_checkpoint(checkpoint: str | Path) -> str | Path:
    """The file of a checkpoint that may be given as ``zoo:NAME``, of a model."""
    if not str(checkpoint).startswith(PREFIX):
        return checkpoint
    return published_checkpoint(find_model(str(checkpoint)).name)


def resolve_names(cfg: Config) -> None:
    """Replace the names that a training starts from, ``zoo:NAME`` in load_from and model.backbone.weights, by files."""
    if cfg.get("load_from"):
        cfg.load_from = str(local_checkpoint(cfg.load_from))
    backbone = cfg.model.get("backbone") or {}
    if str(backbone.get("weights") or "").startswith(PREFIX):
        backbone["weights"] = str(published_checkpoint(backbone["weights"]))


def _keep(entry: Entry, source: Path, target: Path) -> None:
    """Keep a backbone's file as it is, if the backbone has its tensors.

    Raises:
        UserError: none of them fits.
    """
    kind, variant = entry.backbone
    try:
        build_backbone(dict(type=kind, variant=variant, weights=str(source)))
    except ValueError as error:
        raise UserError(str(error)) from error
    source.replace(target)
