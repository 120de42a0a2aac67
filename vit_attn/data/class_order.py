"""Check of a data module's class order against a checkpoint's."""

import itertools

from vit_attn.data.datasets.registry import OWN
from vit_attn.errors import UserError


def needs_renumbering(dataset: str, stored: tuple[str, ...], here: tuple[str, ...], fitting: bool) -> bool:
    """Tell if a checkpoint has the same classes in another order, which evaluation can follow.

    Only the order of a user's own classes is a convention, which has changed between versions of this program.

    Args:
        dataset: Name of the data set.
        stored: Class names of the checkpoint, by index.
        here: Class names of the data set, by index.
        fitting: Whether training would resume from the checkpoint.

    Raises:
        UserError: If the classes differ, or if their order does and cannot be followed.
    """
    if stored == here:
        return False
    reordered = sorted(stored) == sorted(here)
    if not reordered or dataset not in OWN or fitting:
        hint = "; an order that changed since cannot be resumed: begin anew" if reordered else ""
        raise UserError(f"the checkpoint is of other classes than {dataset}: {_first_difference(stored, here)}{hint}")
    return True


def _first_difference(stored: tuple[str, ...], here: tuple[str, ...]) -> str:
    pairs = itertools.zip_longest(stored, here, fillvalue="none")
    number, (theirs, ours) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"class {number} is {theirs!r} there and {ours!r} here"
