"""Evaluate a checkpoint on the test split and write a report."""

from vit_attn.commands.start import start_lightning
from vit_attn.training import stopping


def run(command: str, options: list[str]) -> int:
    """Run ``test``; signals are handled from here on, before torch is imported.

    Args:
        command: ``test``.
        options: Arguments after the command.

    Returns:
        The exit code.
    """
    with stopping.listening():
        return start_lightning(command, options)
