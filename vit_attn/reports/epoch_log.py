"""Epochs of a run: one line each for the terminal, and their scalars."""

from dataclasses import dataclass

LOGGED = ("train_loss", "train_accuracy", "images_per_second", "mfu", "seconds", "input_fraction")
"""Fields of an epoch that are logged; the others are logged elsewhere."""


@dataclass(frozen=True)
class EpochRow:
    """One epoch of a run; None is not known.

    Args:
        epoch: Number of the epoch, from 1.
        step: Optimiser steps until its end.
        train_loss: Training loss, mean over the logged steps of the epoch.
        train_accuracy: Training accuracy, likewise.
        val_loss: Loss of the epoch's last validation.
        val_accuracy: Its accuracy.
        images_per_second: Training images of all devices per second of training.
        mfu: Model FLOP utilisation.
        seconds: Seconds since the end of the epoch before, all included.
        input_fraction: Fraction of the training time for input.
        seconds_left: Estimated seconds until the end of the run.
    """

    epoch: int
    step: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    images_per_second: float | None = None
    mfu: float | None = None
    seconds: float | None = None
    input_fraction: float | None = None
    seconds_left: float | None = None

    def scalars(self) -> dict[str, float]:
        """Return what is logged of the epoch as a whole, as far as it is known."""
        return {name: getattr(self, name) for name in LOGGED if getattr(self, name) is not None}


def format_line(position: str, row: EpochRow) -> str:
    """Format an epoch, or a part of one, as a line for the terminal, of 80 columns at most in most runs.

    >>> format_line("epoch 2/10", EpochRow(2, 600, 0.5, 0.81, 0.25, 0.9, 1234.5, 0.312, 75.2, 0.02, 3725))
    'epoch 2/10: loss 0.500, val loss 0.250, acc 0.9000, 1,234 img/s, 1.0 h left'
    >>> format_line("step 5/9", EpochRow(1, 5, seconds=0.25))
    'step 5/9'

    Args:
        position: Place of the line in the run.
        row: The values, of which the line has the main ones.
    """
    numbers = [
        None if row.train_loss is None else f"loss {row.train_loss:.3f}",
        None if row.val_loss is None else f"val loss {row.val_loss:.3f}",
        None if row.val_accuracy is None else f"acc {row.val_accuracy:.4f}",
        None if row.images_per_second is None else f"{format_rate(row.images_per_second)} img/s",
        None if row.seconds_left is None else format_left(row.seconds_left),
    ]
    text = ", ".join(number for number in numbers if number)
    return f"{position}: {text}" if text else position


def format_seconds(seconds: float) -> str:
    """Format a duration.

    >>> format_seconds(0.25), format_seconds(9.96), format_seconds(61), format_seconds(7260), format_seconds(200_000)
    ('0.2 s', '10 s', '1 min 1 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    total = round(seconds)
    for unit, name, smaller, smaller_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if total >= unit:
            return f"{total // unit} {name} {total % unit // smaller} {smaller_name}"
    return f"{total} s"


def format_left(seconds: float) -> str:
    """Format an estimate of the time left, to two digits or so.

    >>> format_left(45), format_left(754), format_left(12_060), format_left(200_000)
    ('45 s left', '13 min left', '3.4 h left', '2.3 d left')
    """
    if seconds < 60:
        return f"{seconds:.0f} s left"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left" if seconds < 86400 else f"{seconds / 86400:.1f} d left"


def format_rate(rate: float) -> str:
    """Format a number per second.

    >>> format_rate(12345.6), format_rate(7.25)
    ('12,346', '7.2')
    """
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def format_flops(flops: float) -> str:
    """Format a number of floating-point operations.

    >>> format_flops(49_300_000), format_flops(9_202_000_000), format_flops(1.2e12)
    ('49.3 MFLOP', '9.2 GFLOP', '1,200 GFLOP')
    """
    return f"{flops / 1e9:,.1f} GFLOP".replace(".0 ", " ") if flops >= 1e9 else f"{flops / 1e6:,.1f} MFLOP"
