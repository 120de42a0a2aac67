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


def format_line(row: EpochRow, max_epochs: int | None = None) -> str:
    """Format an epoch as a line for the terminal.

    >>> format_line(EpochRow(2, 600, 0.5, 0.81, 0.25, 0.9, 1234.5, 0.312, 75.2, 0.02, 3725), 10)
    'epoch 2/10, step 600: train loss 0.5000, accuracy 0.8100; val loss 0.2500, accuracy 0.9000; 1,234 images/s, \
MFU 31.2 %; 1 min 15 s, 1 h 2 min left'
    >>> format_line(EpochRow(1, 5, seconds=0.25))
    'epoch 1, step 5: 0.2 s'

    Args:
        row: The epoch.
        max_epochs: Epochs of the run; None if steps or time limit it.
    """
    speed = None if row.images_per_second is None else f"{format_rate(row.images_per_second)} images/s"
    times = [None if row.seconds is None else format_seconds(row.seconds)]
    times.append(None if row.seconds_left is None else f"{format_seconds(row.seconds_left)} left")
    parts = [
        _join(_number("train loss", row.train_loss), _number("accuracy", row.train_accuracy)),
        _join(_number("val loss", row.val_loss), _number("accuracy", row.val_accuracy)),
        _join(speed, None if row.mfu is None else f"MFU {row.mfu:.1%}".replace("%", " %")),
        _join(*times),
    ]
    of = "" if max_epochs is None else f"/{max_epochs}"
    return f"epoch {row.epoch}{of}, step {row.step}: " + "; ".join(part for part in parts if part)


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


def format_rate(rate: float) -> str:
    """Format a number per second.

    >>> format_rate(12345.6), format_rate(7.25)
    ('12,346', '7.2')
    """
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _number(name: str, value: float | None) -> str | None:
    return None if value is None else f"{name} {value:.4f}"


def _join(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part is not None)
