"""Running a network with an early exit: the file decides, or the first of two files and a rule here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import cast

import numpy as np

from efftasks.runtime.backends.base import Backend, NamedSession, Session, check_one_input
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.errors import UserError
from efftasks.structures.field_checks import is_number
from efftasks.structures.spec import EXIT_SCORE, EXIT_THRESHOLD, ArtifactSpec, ExitSpec

__all__ = [
    "ALWAYS",
    "EXITED",
    "NEVER",
    "ExitNetwork",
    "check_inputs",
    "check_runs_exits",
    "check_threshold",
    "open_network",
]

ALWAYS, NEVER = 0.0, 2.0  # thresholds that every score, and that none reaches
EXITED = "exited"  # bool (N,) beside the outputs: whether the early answer was taken


def check_threshold(value: float) -> float:
    """A threshold of exit scores.

    Raises:
        UserError: it is no number from 0.
    """
    if not is_number(value) or value < 0:
        raise UserError(f"exit_threshold: got {value}, expected a number from 0; above 1 no image exits early")
    return float(value)


def check_runs_exits(path: Path, backend: Backend, spec: ArtifactSpec) -> None:
    """Whether a runtime can run an artifact's early exit, if it has one.

    Raises:
        UserError: it cannot.
    """
    if spec.early_exit is not None and not backend.several_inputs:
        names = ", ".join(other.name for other in BACKENDS.values() if other.several_inputs)
        raise UserError(
            f"{path}: early_exit: got {spec.early_exit.form!r}, but {backend.name} runs files of one input alone, "
            f"expected one of {names}; or export the whole network with --exit none"
        )


def check_inputs(path: Path, spec: ArtifactSpec, backend: Backend, session: Session) -> None:
    """Whether a network has one input, and the threshold beside it where it decides by one.

    Args:
        path: of its file.
        spec: its description.
        backend: the runtime, and ``session`` the file as it has it.

    Raises:
        UserError: it has others, or the runtime cannot run its early exit.
    """
    check_runs_exits(path, backend, spec)
    if not backend.several_inputs:
        return
    ports = cast(NamedSession, session).ports
    decides = spec.early_exit is not None and spec.early_exit.form == "if"
    if decides and EXIT_THRESHOLD not in ports:
        raise UserError(f"{path}: early_exit: the network has no input {EXIT_THRESHOLD!r}, but {', '.join(ports)}")
    check_one_input(path, [port for port in ports if not (decides and port == EXIT_THRESHOLD)])


def open_network(
    path: Path,
    spec: ArtifactSpec,
    backend: Backend,
    session: Session,
    threads: int | None = None,
    provider: str | None = None,
) -> Session | ExitNetwork:
    """What runs an artifact.

    Args:
        path: the file that is opened first.
        spec: its description.
        backend: the runtime, and ``session``, ``threads`` and ``provider`` how it was loaded.

    Raises:
        UserError: the second file is missing or another one.
    """
    early_exit = spec.early_exit
    if early_exit is None:
        return session
    if early_exit.form == "if":
        return _Deciding(cast(NamedSession, session), spec.input.name, early_exit)
    rest = _open_rest(path, spec, early_exit, backend, threads, provider)
    return _TwoFiles(session, rest, early_exit)


def _open_rest(
    path: Path, spec: ArtifactSpec, early_exit: ExitSpec, backend: Backend, threads: int | None, provider: str | None
) -> NamedSession:
    assert early_exit.rest is not None
    rest_path = path.with_name(early_exit.rest)
    if not rest_path.is_file():
        raise UserError(f"{rest_path}: no such file, but {path.name} is the first part of two; copy it there, too")
    rest = cast(NamedSession, backend.open(rest_path, threads, provider))
    carried = {output.name for output in early_exit.carried}
    expected = {output.name for output in spec.outputs} - {EXIT_SCORE}
    for kind, names, stated in (("inputs", rest.inputs, carried), ("outputs", rest.outputs, expected)):
        if not stated <= set(names) or (kind == "inputs" and len(rest.ports) != len(stated)):
            raise UserError(
                f"{rest_path}: {kind}: got {', '.join(sorted(names))}, expected {', '.join(sorted(stated))} as "
                f"{path.name} states"
            )
    return rest


class ExitNetwork(ABC):
    """A network with an early exit.

    Attributes:
        threshold: images whose exit score is at least this take the early answer.
    """

    def __init__(self, early_exit: ExitSpec) -> None:
        self.threshold = early_exit.threshold

    @abstractmethod
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As :meth:`efftasks.runtime.backends.base.Session.run`, and ``exited``."""


class _Deciding(ExitNetwork):
    """One file, which decides itself; of one image."""

    def __init__(self, session: NamedSession, name: str, early_exit: ExitSpec) -> None:
        super().__init__(early_exit)
        self._session, self._name = session, name

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        threshold = np.array([self.threshold], np.float32)
        outputs = self._session.run_named({self._name: images, EXIT_THRESHOLD: threshold})
        return {**outputs, EXITED: outputs[EXIT_SCORE] >= threshold}


class _TwoFiles(ExitNetwork):
    """Two files: the second runs on the images that go on, and not at all where there are none."""

    def __init__(self, session: Session, rest: NamedSession, early_exit: ExitSpec) -> None:
        super().__init__(early_exit)
        self._session, self._rest = session, rest
        self._carried = [output.name for output in early_exit.carried]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = dict(self._session.run(images))
        exited = outputs[EXIT_SCORE] >= np.float32(self.threshold)
        carried = {name: outputs.pop(name) for name in self._carried}
        if not exited.all():
            if exited.any():
                carried = {name: np.ascontiguousarray(value[~exited]) for name, value in carried.items()}
            late = self._rest.run_named(carried)
            outputs.update(_merged(outputs, late, exited) if exited.any() else late)
        return {**outputs, EXITED: exited}


def _merged(early: dict[str, np.ndarray], late: dict[str, np.ndarray], exited: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of a batch of which some images have left early."""
    merged = {name: np.array(early[name]) for name in late if name in early}
    for name, value in merged.items():
        value[~exited] = late[name]
    return merged
