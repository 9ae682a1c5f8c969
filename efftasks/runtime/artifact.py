"""An exported file, loaded: its description, checked against the file, and its outputs."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from efftasks.runtime.backends.base import Backend, Session
from efftasks.runtime.backends.table import BACKENDS, artifact_suffixes, find_backend
from efftasks.runtime.decoders import DECODERS, Decoder
from efftasks.runtime.exits import EXITED, ExitNetwork, check_inputs, check_runs_exits, check_threshold, open_network
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import METADATA_KEY, ArtifactSpec, DecoderSpec
from efftasks.structures.suffixes import first_part
from efftasks.zoo.artifacts import artifact_path

__all__ = ["Artifact", "check_files"]

_SUFFIXES = tuple(backend.suffix for backend in BACKENDS.values())


class Artifact:
    """An exported file that a runtime has loaded.

    Its description is inside the file, or in the sidecar beside it (the same name, ``.json``). A sidecar that states
    files with digests is held against them before anything is loaded.

    Args:
        path: the file, or the name of a published checkpoint; see :func:`efftasks.zoo.artifacts.artifact_path`.
        backend: name of the runtime; None takes the one for the suffix of ``path``.
        threads: threads of the runtime; None leaves it to the runtime.
        provider: what the runtime runs it on, such as ``"cuda"``; None for the runtime's processor, the CPU.

    Attributes:
        path: the file.
        backend: the runtime.
        session: the file as the runtime has it, the first one of two.
        spec: its description.
        outputs: names of what :meth:`run` gives.
        lock: to be held from a call to the end of the use of its arrays, where several threads use the artifact.

    Raises:
        UserError: a file is missing, changed or corrupt, does not say what it is, or the runtime is not installed or
            does not have the provider.
    """

    def __init__(
        self,
        path: str | Path,
        backend: str | None = None,
        threads: int | None = None,
        provider: str | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads: got {threads}, expected an integer from 1, or None")
        path = artifact_path(path)
        self.path = Path(path)
        _check_no_folder(self.path)
        self.backend: Backend = find_backend(path, backend)
        sidecar = _read_sidecar(self.path)
        if sidecar is not None:
            check_files(self.path, sidecar)
            check_runs_exits(self.path, self.backend, sidecar)
        self.session: Session = self.backend.open(path, threads, provider)
        self.spec = _describe(self.path, self.session.metadata, sidecar)
        check_inputs(self.path, self.spec, self.backend, self.session)
        self._network_outputs = [output.name for output in self.spec.outputs]
        for kind, stated, names in (
            ("input", [self.spec.input.name], self.session.inputs),
            ("outputs", [output.name for output in self.spec.file_outputs], self.session.outputs),
        ):
            if not set(stated) <= set(names):
                raise UserError(f"{path}: {kind}: its description names {stated}, the network has {list(names)}")
        self._network = open_network(self.path, self.spec, self.backend, self.session, threads, provider)
        if self.spec.early_exit is not None:
            self._network_outputs.append(EXITED)
        self._decoder = None if self.spec.decoder is None else _find_decoder(self.path, self.spec, self.spec.decoder)
        self.outputs = frozenset(output.name for output in self.spec.outputs)
        if self._decoder is not None:
            self.outputs |= self._decoder.adds(self.outputs)
        self.lock = threading.Lock()

    @property
    def parts(self) -> tuple[Path, ...]:
        """All files that it consists of, the one that is opened first before the others."""
        early_exit = self.spec.early_exit
        rest = () if early_exit is None or early_exit.rest is None else (self.path.with_name(early_exit.rest),)
        return tuple(part for opened in (self.path, *rest) for part in self.backend.parts(opened))

    @property
    def exit_threshold(self) -> float | None:
        """The least score with which an image takes the early answer; None of networks without an exit."""
        return self._network.threshold if isinstance(self._network, ExitNetwork) else None

    @exit_threshold.setter
    def exit_threshold(self, value: float) -> None:
        """Another threshold, from the next call on.

        Raises:
            UserError: it is no number from 0, or the network has no exit.
        """
        if not isinstance(self._network, ExitNetwork):
            raise UserError(
                f"exit_threshold: got {value}, but {self.path} has no early exit; leave it out, or export with --exit"
            )
        self._network.threshold = check_threshold(value)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Network input -> predictions, decoded.

        Args:
            images: float32 (N, 3, H, W), or (N, H, W, 3) where the description's layout is NHWC; or uint8 (N, H, W, 4)
                where it states that type; contiguous.

        Returns:
            Name -> array; of networks with an exit also ``exited``, bool (N,). The arrays may be the runtime's own
            memory: they are good until the next call.

        Raises:
            WorkError: the runtime refuses the input, or fails.
        """
        return self.decode(self.run_network(images))

    def run_network(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Network input -> outputs as the file has them; all as in :meth:`run`."""
        try:
            outputs = self._network.run(images)
        except Exception as error:  # each runtime has classes of its own
            reason = " ".join(str(error).split())
            raise WorkError(
                f"{self.path}: {self.backend.name} cannot run it on an input {images.dtype} {images.shape} ({reason}); "
                "a description of another file can be the cause"
            ) from error
        return {name: outputs[name] for name in self._network_outputs}

    def run_apart(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :meth:`run_network`, with arrays that stay as they are. It holds the lock."""
        with self.lock:
            outputs = self.run_network(images)
            if self.backend.new_outputs:
                return outputs
            return {name: np.array(value) for name, value in outputs.items()}

    def decode(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs as the file has them -> predictions, decoded where the file ends before its decoder."""
        if self._decoder is None or self.spec.decoder is None:
            return outputs
        return self._decoder.decode(outputs, self.spec.decoder)


def _check_no_folder(path: Path) -> None:
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        hint = f", such as {path / names[0]}" if names else ""
        raise UserError(f"{path}: got a folder, expected an exported file ({artifact_suffixes()}){hint}")


def check_files(path: str | Path, spec: ArtifactSpec) -> None:
    """Hold an artifact's files against their digests.

    The first file is the artifact itself, whatever its name is now. Others that had its stem have it still, as that is
    how a runtime finds them; the rest lie beside it by the names they have in the description. A description of a file
    of another kind, or without files, says nothing of this one.

    Args:
        path: of the artifact.
        spec: from its sidecar.

    Raises:
        UserError: a file is missing, incomplete or another one.
    """
    path = Path(path)
    if not spec.files or Path(spec.files[0].name).suffix != path.suffix:
        return
    origin = path.with_suffix(".json").name
    spec.files[0].check(path, origin)
    stem = Path(spec.files[0].name).stem
    for file in spec.files[1:]:
        name = Path(file.name)
        file.check(path.with_suffix(name.suffix) if name.stem == stem else path.with_name(file.name), origin)


def _find_decoder(path: Path, spec: ArtifactSpec, stated: DecoderSpec) -> Decoder:
    """The decoder that a description names, if the file has what it takes."""
    if stated.name not in DECODERS:
        raise UserError(
            f"{path}: decoder.name: got {stated.name!r}, expected one of {', '.join(DECODERS)}; a newer one needs a "
            "newer efftasks"
        )
    decoder, names = DECODERS[stated.name], {output.name for output in spec.outputs}
    made = decoder.adds(names | decoder.takes)
    if not decoder.takes <= names or made & names:
        raise UserError(
            f"{path}: outputs: got {', '.join(sorted(names))}, expected {', '.join(sorted(decoder.takes))} and not "
            f"{', '.join(sorted(made))}, which the decoder {stated.name!r} makes"
        )
    for field in decoder.needs:
        if getattr(stated, field) is None:
            raise UserError(f"{path}: decoder.{field}: got null, expected a number for {stated.name!r}")
    for output in spec.outputs:
        if output.name in decoder.reads(names) and not output.dtype.startswith("float"):
            raise UserError(
                f"{path}: outputs: {output.name!r} is {output.dtype}, expected a float type: nothing states its scale"
            )
    return decoder


def _read_sidecar(path: Path) -> ArtifactSpec | None:
    """The description beside a file; None where there is none. JSON of anything else is left alone."""
    sidecar = path.with_suffix(".json")
    if not path.is_file() or not sidecar.is_file():
        return None
    try:
        data = json.loads(sidecar.read_bytes())
    except ValueError:
        return None
    ours = isinstance(data, dict) and "schema" in data and "outputs" in data
    return ArtifactSpec.from_json(data, origin=str(sidecar)) if ours else None


def _describe(path: Path, metadata: str | None, sidecar: ArtifactSpec | None) -> ArtifactSpec:
    """What a file says of itself, with the files and score thresholds of its sidecar; or what the sidecar says."""
    if metadata is not None:
        spec = ArtifactSpec.from_json(metadata, origin=str(path))
        if sidecar is None:
            return spec
        return replace(spec, files=sidecar.files, score_thresholds=sidecar.score_thresholds)
    if sidecar is not None:
        return sidecar
    beside = path.with_suffix(".json")
    if beside.is_file():
        return ArtifactSpec.load(beside)  # says what is wrong with it
    first = first_part(path)
    if first is not None and first.is_file():
        raise UserError(f"{path}: got the second part of a network with an early exit, expected the first one: {first}")
    raise UserError(
        f"{path}: neither metadata {METADATA_KEY!r} inside nor {beside.name} beside it, expected a file exported by "
        f"efftasks: copy its {beside.name}, too, or export it again with efftasks export"
    )
