"""Models on the Hugging Face Hub, through its own client."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from efftasks.apis.model_card import model_card, read_benchmark
from efftasks.config import load_config
from efftasks.imaging.placing import link_or_copy
from efftasks.runtime.artifact import check_files
from efftasks.runtime.backends.table import BACKENDS, artifact_suffixes
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactSpec

__all__ = ["pull", "push"]

_CONFIG = "config.py"


def push(
    model: str | Path,
    repo: str,
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    benchmark: str | Path | None = None,
    license: str | None = None,
    private: bool = False,
    endpoint: str | None = None,
) -> str:
    """Upload an exported file with its sidecar and a model card, and a checkpoint with its config if there is one.

    Args:
        model: the exported file, or a folder that has one.
        repo: ``user/name``; it is made if it does not exist.
        checkpoint: weights to upload as well.
        config: of the checkpoint, and only with one; None takes the one that the sidecar names.
        benchmark: the ``.json`` that ``efftasks benchmark --out`` wrote, for the card.
        license: of the weights, as the Hub names it.
        private: whether a new repository is private.
        endpoint: address of the Hub; None for the client's, ``HF_ENDPOINT`` or huggingface.co.

    Returns:
        The address of the upload.

    Raises:
        UserError: there is no exported file with a sidecar, or another input does not fit.
        WorkError: the Hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    if config is not None and checkpoint is None:
        raise UserError(f"--config: got {config} alone, expected the checkpoint that it belongs to by --checkpoint")
    file = _exported_file(Path(model))
    sidecar = file.with_suffix(".json")
    if not sidecar.is_file():
        raise UserError(f"{file}: no {sidecar.name} beside it, expected what efftasks export writes")
    spec = ArtifactSpec.load(sidecar)
    check_files(file, spec)
    rows = read_benchmark(benchmark) if benchmark is not None else []
    with tempfile.TemporaryDirectory() as folder:
        for uploaded in [sidecar.name, file.name, *(part.name for part in spec.files[1:])]:
            link_or_copy(file.with_name(uploaded), Path(folder, uploaded))
        if checkpoint is not None:
            if not Path(checkpoint).is_file():
                raise UserError(f"--checkpoint: {checkpoint}: no such file")
            link_or_copy(Path(checkpoint), Path(folder, Path(checkpoint).name))
            load_config(str(config or spec.source.get("config", ""))).dump(str(Path(folder, _CONFIG)))
        name = None if checkpoint is None else Path(checkpoint).name
        Path(folder, "README.md").write_text(model_card(repo, file, spec, rows, license, name), encoding="utf-8")
        with _one_sentence(repo):
            api = HfApi(endpoint=endpoint)
            api.create_repo(repo, private=private or None, exist_ok=True)
            done: Any = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload with efftasks")
    return str(done.commit_url)


def pull(repo: str, out: str | Path | None = None, revision: str | None = None, endpoint: str | None = None) -> Path:
    """Fetch a model that :func:`push` uploaded; what is in the Hub's cache is not fetched again, and works offline.

    Args:
        repo: ``user/name``.
        out: folder for the files; None leaves them in the Hub's cache.
        revision: branch, tag or commit; None for the newest.
        endpoint: as for :func:`push`.

    Returns:
        The exported file, whose digest was checked.

    Raises:
        UserError: the repository has no exported file, or one of its files is another one.
        WorkError: the Hub has no such repository, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    with _one_sentence(repo):
        folder = snapshot_download(repo, revision=revision, local_dir=out, endpoint=endpoint)
    file = _exported_file(Path(str(folder)))
    check_files(file, ArtifactSpec.load(file.with_suffix(".json")))
    return file


@contextmanager
def _one_sentence(repo: str) -> Iterator[None]:
    """Errors of the Hub's client as ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UserError(f"{repo}: the Hub does not take this name, expected user/name") from error
    except errors.LocalTokenNotFoundError as error:
        raise UserError(f"{repo}: the Hub asks who you are; log in with hf auth login, or set HF_TOKEN") from error
    except (errors.HTTPError, OSError) as error:  # also those without a connection
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WorkError(f"{repo}: the Hub cannot be used ({reason})") from error


def _exported_file(path: Path) -> Path:
    """The file itself, or the one in a folder that a runtime opens."""
    if path.is_file():
        return path
    suffixes = tuple(backend.suffix for backend in BACKENDS.values())
    files = sorted(file for file in path.glob("*") if file.suffix in suffixes) if path.is_dir() else []
    described = [file for file in files if file.with_suffix(".json").is_file()]
    if len(described) != 1:
        names = ", ".join(file.name for file in described) or "none"
        raise UserError(
            f"{path}: got {names}, expected an exported file ({artifact_suffixes()}) with its .json, or a folder with "
            "one"
        )
    return described[0]
