"""What a runtime is to this package: the files it reads, and what loads one of them. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Backend", "NamedSession", "Session", "check_one_input"]

_LFS_POINTER = b"version https://git-lfs"


class Session(Protocol):
    """A file that a runtime has loaded: a network of one input."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the network's input, one where the runtime keeps a single one."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs, one or more each."""
        ...

    @property
    def metadata(self) -> str | None:
        """The description inside the file, JSON; None where there is none, or the format has no room for it."""
        ...

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Network input -> output name -> array.

        Args:
            images: float32 (N, 3, H, W), or (N, H, W, 3) where the file's layout is NHWC; or uint8 (N, H, W, 4) where
                it takes bytes; contiguous.

        Returns:
            All outputs, each under all of its names. The arrays may be the runtime's own memory: they are good until
            the next call.
        """
        ...


class NamedSession(Session, Protocol):
    """A file that a runtime has loaded: a network of one or more inputs."""

    @property
    def ports(self) -> tuple[str, ...]:
        """A name of each of the network's inputs."""
        ...

    def run_named(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As :meth:`Session.run`, with an array for each of the network's inputs."""
        ...


@dataclass(frozen=True)
class Backend:
    """A runtime.

    Attributes:
        name: as commands and ``Predictor`` take it.
        suffix: of its own files; a file of this suffix is for this runtime where none is named.
        files: suffixes of all files of one such artifact, which have the same stem; ``suffix`` first.
        module: what it imports, whose version reports state.
        extra: the extra of this package that installs it; None where the base installation has it.
        load: (path, threads) -> session; threads None leaves their number to the runtime. It imports the runtime, and
            raises UserError for a file that is corrupt. Where there are ``providers``, it takes the name of one as a
            third argument.
        also_reads: suffixes of other runtimes' files that this one reads, too.
        providers: names of what the installed runtime can run files on, in lower case, the default first; None where
            there is no choice. It imports the runtime.
        several_inputs: whether its sessions are :class:`NamedSession`, for networks of several inputs.
        new_outputs: whether each call of a session gives new arrays, so that none has to be copied to be kept.
    """

    name: str
    suffix: str
    files: tuple[str, ...]
    module: str
    extra: str | None
    load: Callable[..., Session]
    also_reads: tuple[str, ...] = ()
    providers: Callable[[], tuple[str, ...]] | None = None
    several_inputs: bool = False
    new_outputs: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Suffixes of all files it reads, its own first."""
        return (self.suffix, *self.also_reads)

    def parts(self, path: str | Path) -> tuple[Path, ...]:
        """All files that an artifact consists of, the given one first; another runtime's has none beside it."""
        path = Path(path)
        if path.suffix.lower() != self.suffix:
            return (path,)
        return (path, *(path.with_suffix(suffix) for suffix in self.files[1:]))

    def open(self, path: str | Path, threads: int | None = None, provider: str | None = None) -> Session:
        """Load a file.

        Args:
            path: the file.
            threads: of the runtime; None leaves it to the runtime.
            provider: what it runs on; None for the default.

        Raises:
            UserError: a file is missing or corrupt, or the runtime is not installed or does not have the provider.
        """
        path = Path(path)
        _check_parts(self.parts(path))
        try:
            if provider is None:
                return self.load(path, threads)
            return self.load(path, threads, self._provider(provider))
        except ImportError as error:
            if (error.name or "").startswith("efftasks"):
                raise
            package = "efftasks" if self.extra is None else f"'efftasks[{self.extra}]'"
            raise UserError(
                f"{path}: the runtime {self.name} is not installed ({error}); install it with: pip install {package}"
            ) from error
        except UserError as error:
            faults = [fault for fault in map(_fault, self.parts(path)) if fault]
            if not faults:
                raise
            raise UserError(faults[0]) from error

    def _provider(self, name: str) -> str:
        """A provider's name in lower case, if the runtime has it: it is never replaced by another one."""
        if self.providers is None:
            raise UserError(f"provider: got {name!r}, but {self.name} has no choice of providers; leave it out")
        there = self.providers()
        if name.lower() not in there:
            raise UserError(
                f"provider: got {name!r}, expected one that the installed {self.name} has here: {', '.join(there)}"
            )
        return name.lower()


def check_one_input(path: Path, names: Sequence[str]) -> None:
    """Whether a network has a single input.

    Args:
        path: its file.
        names: of its inputs, one each.

    Raises:
        UserError: it has several, or none.
    """
    if len(names) != 1:
        raise UserError(f"{path}: got a network with the inputs {', '.join(names) or 'none'}, expected one, for images")


def _check_parts(parts: Sequence[Path]) -> None:
    """Whether all files of an artifact, the one that is opened first, are there."""
    for part in parts:
        if part.is_dir():
            raise UserError(f"{part}: got a folder, expected a file")
        if not part.is_file():
            more = "" if part == parts[0] else f", but {parts[0].name} is of no use without it; copy it there, too"
            raise UserError(f"{part}: no such file{more}")


def _fault(part: Path) -> str | None:
    """What a runtime does not say of a file that it cannot load."""
    with part.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if not start:
        return f"{part}: the file is empty (0 bytes); copy or export it again"
    if start == _LFS_POINTER:
        return f"{part}: got a pointer of Git LFS, expected the file itself; get it with: git lfs pull"
    return None
