"""Former names of arguments in configs that were written, or dumped, before a rename."""

from __future__ import annotations

from mmengine.config import Config

from efftasks.linking.declared import declared
from efftasks.linking.links import walk
from efftasks.linking.sizes import dotted
from efftasks.structures.errors import UserError

__all__ = ["rename_arguments"]


def rename_arguments(cfg: Config) -> None:
    """Replace former names of arguments, which a class declares in ``renamed_arguments``, by those of now.

    Raises:
        UserError: a config has both names, such as an old config on top of a base of now.
    """
    for place, node in walk(cfg._cfg_dict):
        for old, new in declared(node.get("type"), "renamed_arguments").items():
            if old not in node:
                continue
            if new in node:
                raise UserError(
                    f"{dotted((*place, old))}: was renamed to {new}, which the config has as well; set that"
                )
            node[new] = node.pop(old)
