"""Limits for YAML: a few lines can expand to more than any memory holds, or nest until Python crashes."""

from typing import Any

import yaml
from jsonargparse import _loaders_dumpers as jsonargparse_loaders

MAX_CHARACTERS = 1_000_000
MAX_NODES = 100_000
"""Values in a text, where those that an alias repeats count each time."""
MAX_DEPTH = 64
"""Nested lists and mappings; PyYAML's fast loader crashes the process at some tens of thousands."""
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class LimitError(yaml.YAMLError):
    """Text beyond the limits; jsonargparse treats it like any other invalid YAML."""


def check_limits(text: str) -> None:
    """Check size, depth, and size with aliases expanded, without building any value.

    Raises:
        LimitError: If the text is too large or too deep.
        yaml.YAMLError: If it is not YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise LimitError(f"more than {MAX_CHARACTERS:,} characters")
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and number of nodes before it
    nodes = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise LimitError(f"alias *{event.anchor} refers to a value that contains it, or to none")
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
        if nodes > MAX_NODES:
            raise LimitError(f"more than {MAX_NODES:,} values, including those that aliases repeat")
        if len(open_nodes) > MAX_DEPTH:
            raise LimitError(f"nested more than {MAX_DEPTH} deep")


def load_yaml(text: str) -> Any:
    """Load YAML as plain values.

    Raises:
        yaml.YAMLError: If the text is not YAML, or beyond the limits.
    """
    check_limits(text)
    try:
        return yaml.load(text, Loader=LOADER)  # a safe loader, which creates no objects
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a date that does not exist
        raise LimitError(str(error).partition(";")[0]) from error


def limit_jsonargparse() -> None:
    """Apply the limits to all YAML that jsonargparse reads: files, option values, and texts within them."""
    original: Any = jsonargparse_loaders.get_yaml_default_loader()
    if getattr(original, "limited", False):
        return

    class LimitedLoader(original):
        limited = True

        def __init__(self, stream: Any) -> None:
            check_limits(stream if isinstance(stream, str) else stream.read())
            super().__init__(stream)

        def get_single_data(self) -> Any:
            try:
                return super().get_single_data()
            except ValueError as error:
                raise LimitError(str(error).partition(";")[0]) from error

    vars(jsonargparse_loaders)["yaml_default_loader"] = LimitedLoader  # there is no public way to set it
