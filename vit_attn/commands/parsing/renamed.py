"""Settings and classes that were renamed, for hints to the user and for configurations of earlier runs.

To rename a setting, add its old and new name to :data:`RENAMED_SETTINGS`. The old name is then a one-line error with
the new name as a hint, on the command line and in configuration files; configurations that earlier runs stored are
translated silently when such a run is resumed or tested.
"""

from collections.abc import Mapping
from typing import Any

RENAMED_SETTINGS = {"data.skip_damaged": "data.skip_corrupt"}
"""New names of settings, or groups of settings, by the old ones: ``{"data.old_name": "data.new_name"}``."""
RENAMED_CLASSES = {
    "vit_attn.callbacks.TuningComparison": "vit_attn.callbacks.FinetuneComparison",
    "vit_attn.callbacks.tuning_comparison.TuningComparison": "vit_attn.callbacks.FinetuneComparison",
}
"""New class paths by the old ones."""


def new_setting_name(name: str) -> str | None:
    """Return the new name of a setting that was renamed, or that is in a renamed group; None for any other.

    Args:
        name: Name with its groups, such as ``data.batch_size``.
    """
    for old, new in RENAMED_SETTINGS.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return None


def find_renamed_class(message: str) -> tuple[str, str] | None:
    """Find the class path that a message of jsonargparse is about in the table of renamed ones.

    Args:
        message: Message about a class path that cannot be imported, which may name its parts only.

    Returns:
        Its old and new path, or None.
    """
    for old, new in RENAMED_CLASSES.items():
        parts = old.split(".")
        failures = [
            f"module '{'.'.join(parts[:count])}' has no attribute '{parts[count]}'" for count in range(1, len(parts))
        ]
        failures.append(f"Expected a dot import path string: {parts[-1]}")  # the class without its module
        if any(failure in message for failure in failures):
            return old, new
    return None


def rename_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a stored configuration to the current names; a value under a new name is kept.

    Args:
        settings: Nested settings by group and name. They are not changed.
    """
    renamed = _rename_classes(settings)
    for old, new in RENAMED_SETTINGS.items():
        *old_groups, old_name = old.split(".")
        *new_groups, new_name = new.split(".")
        source = _group(renamed, old_groups)
        if source is None or old_name not in source:
            continue
        value = source.pop(old_name)
        target = _group(renamed, new_groups, create=True)
        if target is not None:
            target.setdefault(new_name, value)
    return renamed


def _group(settings: dict[str, Any], names: list[str], create: bool = False) -> dict[str, Any] | None:
    """Find a nested group of settings; None if there is none."""
    group: Any = settings
    for name in names:
        group = group.setdefault(name, {}) if create else group.get(name)
        if not isinstance(group, dict):
            return None
    return group


def _rename_classes(value: Any) -> Any:
    """Copy settings with every ``class_path`` under its current name."""
    if isinstance(value, Mapping):
        copied = {name: _rename_classes(each) for name, each in value.items()}
        path = copied.get("class_path")
        if isinstance(path, str):
            copied["class_path"] = RENAMED_CLASSES.get(path, path)
        return copied
    return [_rename_classes(each) for each in value] if isinstance(value, list) else value
