"""Check of the path of a checkpoint, before torch is imported and after it."""

from pathlib import Path

from vit_attn.errors import UserError


def check_checkpoint_path(command: str, path: str | Path | None) -> None:
    """Check that a command has the checkpoint that it needs.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        path: Value of ``--ckpt_path``.

    Raises:
        UserError: If there is no such file, or if the command cannot do without one.
    """
    if path is None and command != "fit":
        raise UserError(f"{command} needs a checkpoint: --ckpt_path RUN/checkpoints/best.ckpt")
    if path is not None and not Path(path).exists():
        raise UserError(f"checkpoint not found: {path}")
