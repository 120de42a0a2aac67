"""Axes of an attention's tensors before tokens and channels: images or windows, and heads, in any of three forms."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HeadAxes:
    """Where the heads are among the axes before tokens and channels.

    (images, heads), or one axis of both in which the heads of an image follow each other, or (images, windows, heads)
    in one of two orders.
    """

    before: tuple[int, ...]
    """Sizes of these axes."""
    heads: int
    axis: int = 1
    """Axis of the heads, if they have one."""

    @property
    def is_merged(self) -> bool:
        """True if several images and several heads share one axis."""
        return len(self.before) == 1 and 1 < self.heads < self.before[0]

    def split(self, x: Tensor) -> Tensor:
        """Bring queries, keys, values, masks or weights into the shape (images and windows, heads, …)."""
        if len(self.before) == 1:
            return x.unflatten(0, (-1, self.heads)) if len(x) == self.before[0] else x
        return x if len(self.before) == 2 else x.movedim(self.axis, 2).flatten(0, 1)

    def join(self, x: Tensor) -> Tensor:
        """Bring an output back into the form that the network asked for."""
        if len(self.before) == 1:
            return x.flatten(0, 1)
        return x if len(self.before) == 2 else x.unflatten(0, (self.before[0], -1)).movedim(2, self.axis)
