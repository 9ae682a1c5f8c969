"""Rows of prediction layers are taken from a checkpoint by the names of their classes."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from efftasks.structures.errors import UserError
from efftasks.structures.features import GUIDE_PREFIX
from efftasks.structures.protocols import HasClassRows

__all__ = ["CarriedClasses", "ChangedClasses", "ClassCarry", "class_rows", "matching_classes"]

KINDS = ("classes", "semantic_classes")
_LISTED = 20  # names in a line of the log


def class_rows(model: nn.Module) -> dict[str, str]:
    """Names of the tensors of a model with a row for each class -> ``classes`` or ``semantic_classes``.

    Its modules declare them, see :class:`~efftasks.structures.protocols.HasClassRows`. Those of a guide do not count.
    """
    rows: dict[str, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, HasClassRows):
            prefix = f"{name}." if name else ""
            rows.update((prefix + tensor, kind) for tensor, kind in module.class_rows().items())
    return {name: kind for name, kind in rows.items() if not name.startswith(GUIDE_PREFIX)}


def matching_classes(old: Sequence[str], new: Sequence[str], renamed: Mapping[str, str]) -> dict[int, int]:
    """Which classes of a checkpoint are classes of a config: index of the new one -> index of the old one.

    Names are equal, or differ in upper case, spaces, hyphens and underscores only, where that leaves one candidate.

    Args:
        old: of the checkpoint.
        new: of the config.
        renamed: new name -> its name in the checkpoint; counts before all others.
    """
    matches = {i: old.index(renamed.get(name, name)) for i, name in enumerate(new) if renamed.get(name, name) in old}
    free_old = [i for i in range(len(old)) if i not in matches.values()]
    free_new = [i for i in range(len(new)) if i not in matches and new[i] not in renamed]
    counts = [Counter(_plain(names[i]) for i in free) for names, free in ((old, free_old), (new, free_new))]
    by_key = {_plain(old[i]): i for i in free_old}
    for i in free_new:
        key = _plain(new[i])
        if key and counts[0][key] == counts[1][key] == 1:
            matches[i] = by_key[key]
    return matches


class CarriedClasses(NamedTuple):
    """Weights whose rows are those of the config's classes, and what to tell about it."""

    weights: dict[str, Tensor]
    infos: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class ChangedClasses(NamedTuple):
    """Classes of a checkpoint that are not those of the config."""

    kind: str
    old: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        return f"it has {', '.join(self.old[:5])}, the config {', '.join(self.new[:5])}"


@dataclass(frozen=True)
class ClassCarry:
    """Takes rows of prediction layers by class name, where training starts from a checkpoint.

    Attributes:
        classes: ``classes`` and ``semantic_classes`` -> names, of the config; kinds that it does not state are not
            changed.
        setting: True takes the rows of all classes that the checkpoint has, too; False none, so that all prediction
            layers start anew; a dict from the name of a class to its name in the checkpoint adds pairs to True.
    """

    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    setting: bool | Mapping[str, str] = True

    @classmethod
    def of_config(cls, cfg: Mapping[str, Any]) -> ClassCarry:
        """That of a linked config: its classes and ``carry_classes``.

        Raises:
            UserError: ``carry_classes`` is neither True or False nor a dict of names.
        """
        setting = cfg.get("carry_classes", True)
        is_dict = isinstance(setting, Mapping) and all(isinstance(x, str) for pair in setting.items() for x in pair)
        if not (isinstance(setting, bool) or is_dict):
            raise UserError(
                f"carry_classes: got {setting!r}, expected True, False, or a dict from the name of a class to its name "
                "in the checkpoint"
            )
        return cls({kind: tuple(cfg[kind]) for kind in KINDS if cfg.get(kind)}, setting)

    def check_same(self, trained_on: Mapping[str, Any], source: Any) -> None:
        """Refuse to resume with other classes, or in another order: the optimizer and the average have the old rows.

        Args:
            trained_on: as of :meth:`apply`.
            source: the checkpoint's path, for messages.

        Raises:
            UserError: the classes differ.
        """
        changed = self.first_change(trained_on)
        if changed is not None:
            raise UserError(
                f"{source}: training cannot be resumed from it with other {changed.kind} or in another order ({changed}"
                "); set load_from to start from its weights"
            )

    def first_change(self, trained_on: Mapping[str, Any]) -> ChangedClasses | None:
        """The first kind of classes that are others than those of a checkpoint, or in another order; None without one.

        Args:
            trained_on: as of :meth:`apply`; kinds that it does not name are taken for unchanged.
        """
        for kind, new in self.classes.items():
            old = tuple(trained_on.get(kind) or new)
            if old != tuple(new):
                return ChangedClasses(kind, old, tuple(new))
        return None

    def apply(
        self, model: nn.Module, weights: Mapping[str, Tensor], trained_on: Mapping[str, Any], source: Any
    ) -> CarriedClasses:
        """The weights of a checkpoint with the rows of the config's classes.

        Args:
            model: of the config; rows of classes that the checkpoint does not have are its own.
            weights: of the checkpoint.
            trained_on: ``meta.dataset_meta`` of the checkpoint. Without class names rows stay as they are.
            source: the checkpoint's path, for messages.

        Raises:
            UserError: ``carry_classes`` names a class that the config or the checkpoint does not have.
        """
        rows, state = class_rows(model), model.state_dict()
        if self.setting is False:
            fresh = {name: state[name] for name in rows if name in weights and name in state}
            line = f"{source}: prediction layers of the classes start anew, as carry_classes=False says"
            return CarriedClasses({**weights, **fresh}, (line,))
        self._check_renamed(trained_on, source)
        result = dict(weights)
        infos: list[str] = []
        warnings: list[str] = []
        for kind, new in self.classes.items():
            old = tuple(trained_on.get(kind) or ())
            if not old:
                continue
            matches = matching_classes(old, new, self._renamed)
            names = [name for name in rows if rows[name] == kind and name in weights and name in state]
            result.update(_with_rows(names, weights, state, matches, len(old), len(new)))
            line = f"{source}: {_summary(kind, old, new, matches)}"
            if not names and new != old:
                warnings.append(f"{source}: {_NO_ROWS}" if len(new) == len(old) else line)
            else:
                (infos if matches else warnings).append(line)
        return CarriedClasses(result, tuple(infos), tuple(warnings))

    @property
    def _renamed(self) -> Mapping[str, str]:
        return {} if isinstance(self.setting, bool) else self.setting

    def _check_renamed(self, trained_on: Mapping[str, Any], source: Any) -> None:
        new = [name for names in self.classes.values() for name in names]
        old = [name for kind in KINDS for name in trained_on.get(kind) or ()]
        for pair in self._renamed.items():
            for name, names, owner in zip(pair, (new, old), ("the config", source)):
                if name not in names:
                    near = difflib.get_close_matches(name, names, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else f", it has {_listed(names) or 'none'}"
                    raise UserError(f"carry_classes: got {name!r}, but {owner} has no such class{hint}")


_NO_ROWS = (
    "its classes are not those of the config, and the model does not declare which of its tensors have a row for each "
    "class (class_rows), so that they start with the rows of other classes"
)


def _with_rows(
    names: Sequence[str],
    weights: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    matches: Mapping[int, int],
    old_count: int,
    new_count: int,
) -> dict[str, Tensor]:
    """The tensors of these names for the new classes; rows after those of the classes are kept.

    Tensors that differ in more than the number of classes are left out: the weights are of another architecture.
    """
    result = {}
    for name in names:
        old, new = weights[name], state[name].clone()
        further = new.shape[0] - new_count
        if old.shape[1:] != new.shape[1:] or old.shape[0] - old_count != further or further < 0:
            continue
        for target, index in matches.items():
            new[target] = old[index].to(new)
        new[new_count:] = old[old_count:].to(new)
        result[name] = new
    return result


def _summary(kind: str, old: Sequence[str], new: Sequence[str], matches: Mapping[int, int]) -> str:
    """What was carried, what is new and what was left, in words."""
    if len(matches) == len(new) == len(old):
        order = "" if all(i == j for i, j in matches.items()) else ", in another order"
        parts = [f"all {len(new)} are carried{order}"]
    else:
        carried = [new[i] for i in sorted(matches)]
        parts = [f"{len(carried)} of {len(new)} are carried by name" + (f" ({_listed(carried)})" if carried else "")]
        parts += [
            f"{label} {_listed(names)}"
            for label, names in (
                ("new", [name for i, name in enumerate(new) if i not in matches]),
                ("not needed", [name for i, name in enumerate(old) if i not in matches.values()]),
            )
            if names
        ]
    other = [f"{new[i]!r} from {old[j]!r}" for i, j in sorted(matches.items()) if new[i] != old[j]]
    return "; ".join((f"{kind}: {parts[0]}", *parts[1:], *([f"with other names {_listed(other)}"] if other else [])))


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
