"""Choice of the steps, images and bits that a run writes within its budget of bytes."""

MIN_STEPS = 16
"""Steps that must fit into the budget; else fewer images are kept."""
FEWER_BITS = 3.4
"""Mean bits of an attention weight where all images do not fit in 8; only then are images left out."""
VECTORS_FRACTION = 1 / 8
"""Bytes of queries and keys as a fraction of those of the maps; the first image has them even beyond it."""


class Budget:
    """Selection of the steps that are written, when their number is not known and the bytes are limited.

    Every step until half of the budget is used, every second one until half of what is left is used, and so on: dense
    where networks change fastest, never over the budget, and with room for the last step.

    >>> budget = Budget(100)
    >>> [step for step in range(40) if budget.grants(10)]
    [0, 1, 2, 3, 4, 6, 8, 10, 12]

    Bytes are those that a step takes at most; what it did not take is given back.
    """

    def __init__(self, total: int) -> None:
        self.total = self.left = total
        self.stride, self.seen = 1, 0

    def grants(self, size: int, last: bool = False) -> bool:
        """Decide whether a step of ``size`` bytes is written; ``last`` means that no other will come."""
        while 0 < self.left <= self.total / 2 / self.stride:
            self.stride *= 2
        due = self.seen % self.stride == 0 or last
        self.seen += 1
        if not due or self.left < (size if last else 2 * size):  # room is kept for the last step
            return False
        self.left -= size
        return True

    def give_back(self, size: int) -> None:
        """Add bytes that a granted step did not take."""
        self.left += size


def choose_counts(images: int, of_image: int, of_vectors: int, most: int) -> tuple[int, int]:
    """Choose how many images are written, and of how many of these the queries and keys.

    Queries and keys are written of all images where these take at most ``VECTORS_FRACTION`` of the maps' bytes, else of
    as many images as fit into that fraction, at least one. A step that does not fit is of one image, without them.

    Args:
        images: Images of the step.
        of_image: Bytes of an image.
        of_vectors: Bytes of the queries and keys of an image.
        most: Bytes that a step may take.
    """
    for count in range(images, 0, -1):
        vectors = max(1, min(count, int(VECTORS_FRACTION * count * of_image / of_vectors)))
        if count * of_image + vectors * of_vectors <= most:
            return count, vectors
    return 1, 0
