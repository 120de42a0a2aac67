"""Where the answer of an image stands, in the patches of a network whose grid may be finer than the data set's."""

import itertools
from typing import Any

from vit_attn.data_protocol import ProbeImages


def ground_truth(probe: ProbeImages, layout: Any, name: str) -> list[tuple[int, ...]] | None:
    """The patches of each image that hold a part of its answer; none where that is not known to the patch.

    A data set's patch is one patch of the network, or several whole ones. Where a patch of the network holds more, or
    where they do not meet at the same pixels, none can be named.

    Args:
        probe: ``images``, and ``answers``: by part the patch or patches, row by row in the answer's own ``grid``; an
            answer without a grid is in the network's.
        layout: A layout, a recording or a view.
        name: Which part, such as ``bought``.
    """
    if probe.ground_truth is None or not fits(probe, layout):
        return None
    found = []
    for truth in probe.ground_truth:
        covered = (_cover(patch, truth.grid, layout.grid_size) for patch in truth.regions[name])
        found.append(tuple(itertools.chain.from_iterable(covered)))
    return found


def fits(probe: ProbeImages, layout: Any) -> bool:
    """Whether answers are known, and each of their patches is made of whole patches of the network."""
    if not probe.ground_truth:
        return False
    grid, size = layout.grid_size, tuple(probe.images.shape[-2:])
    if layout.patch_size is not None and size != tuple(
        n * side for n, side in zip(grid, layout.patch_size, strict=True)
    ):
        return False
    grids = {truth.grid for truth in probe.ground_truth}
    return all(count % each == 0 for own in grids for count, each in zip(grid, own, strict=True))


def said_of(probe: ProbeImages, layout: Any) -> str:
    """What the user is told of answers that cannot be used; nothing where there are none, or where they can."""
    if not probe.ground_truth or fits(probe, layout):
        return ""
    grids = (probe.ground_truth[0].grid, layout.grid_size)
    own, grid = (" by ".join(map(str, each)) for each in grids)
    return (
        f"the data set knows the answers in {own} patches, which are not whole patches of the network's {grid}: "
        "answers are neither marked nor judged"
    )


def _cover(patch: int, own: tuple[int, int], grid: tuple[int, int]) -> list[int]:
    """The patches of the network that a patch of the data set is made of."""
    (row, col), down, across = divmod(patch, own[1]), grid[0] // own[0], grid[1] // own[1]
    return [(row * down + r) * grid[1] + col * across + c for r in range(down) for c in range(across)]
