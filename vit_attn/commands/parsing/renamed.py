"""Settings that had another name in earlier versions."""

RENAMED = {"data": {"skip_damaged": "skip_corrupt"}}
"""Current name of each, by section and old name."""


def current_option(option: str) -> str | None:
    """Current name of an option that was renamed.

    >>> current_option("--data.skip_damaged")
    '--data.skip_corrupt'
    """
    section, _, name = option.removeprefix("--").partition(".")
    new = RENAMED.get(section, {}).get(name)
    return new and f"--{section}.{new}"
