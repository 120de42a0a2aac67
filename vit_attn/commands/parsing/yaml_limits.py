"""YAML within limits: a file of a few lines can stand for more than fits any memory, or nest until Python crashes."""

from typing import Any

import yaml
from jsonargparse import _loaders_dumpers as jsonargparse_loaders

MOST_CHARACTERS = 1_000_000
MOST_NODES = 100_000
"""Values of a text, those that an alias repeats counted as often as it does."""
MOST_DEPTH = 64
"""Lists and mappings within one another; PyYAML's fast loader crashes the process at some tens of thousands."""
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class LimitError(yaml.YAMLError):
    """A text beyond the limits; to jsonargparse it is a mistake in YAML like any other."""


def check_limits(text: str) -> None:
    """Refuse a text that is too large, too deep, or too large once its aliases are put in. Nothing is built for it.

    Raises:
        LimitError: If it is; or another of yaml's errors, if it is no YAML.
    """
    if len(text) > MOST_CHARACTERS:
        raise LimitError(f"more than {MOST_CHARACTERS:,} characters")
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and nodes before it
    nodes = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise LimitError(f"alias *{event.anchor} stands for what it is part of, or for nothing")
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes |= {anchor: nodes - before} if anchor else {}
        if nodes > MOST_NODES:
            raise LimitError(f"more than {MOST_NODES:,} values, what aliases repeat included")
        if len(open_nodes) > MOST_DEPTH:
            raise LimitError(f"nested more than {MOST_DEPTH} deep")


def load_yaml(text: str) -> Any:
    """What a text says, as plain data.

    Raises:
        yaml.YAMLError: If it is no YAML, or beyond the limits.
    """
    check_limits(text)
    try:
        return yaml.load(text, Loader=LOADER)  # a safe loader: it makes no objects
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a day that does not exist
        raise LimitError(str(error).partition(";")[0]) from error


def limit_jsonargparse() -> None:
    """Have jsonargparse refuse the same in files, in options, and in texts within them that it reads as YAML, too."""
    theirs: Any = jsonargparse_loaders.get_yaml_default_loader()
    if getattr(theirs, "limited", False):
        return

    class Limited(theirs):
        limited = True

        def __init__(self, stream: Any) -> None:
            check_limits(stream if isinstance(stream, str) else stream.read())
            super().__init__(stream)

        def get_single_data(self) -> Any:
            try:
                return super().get_single_data()
            except ValueError as error:
                raise LimitError(str(error).partition(";")[0]) from error

    vars(jsonargparse_loaders)["yaml_default_loader"] = Limited  # it has no public place for one
