"""Ground truth of images in the patches of a network, whose grid may be finer than the data set's."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from vit_attn.data_protocol import ProbeImages
from vit_attn.errors import UserError


@runtime_checkable
class PatchLayout(Protocol):
    """A layout of patches, as a token layout, a recording or an attention summary has it."""

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        ...

    @property
    def patch_size(self) -> tuple[int, int] | None:
        """Height and width of a patch in pixels; None if unknown."""
        ...


@dataclass(frozen=True)
class GroundTruthPatches:
    """Ground truth of a batch of images.

    Args:
        regions: By name, the patches of each image that are in the region; an image without the region has none.
        edges: Pairs of regions, (query, key), between which attention is knocked out.
    """

    regions: dict[str, Bool[Tensor, "B P"]]
    edges: tuple[tuple[str, str], ...] = ()


def region_title(name: str) -> str:
    """Name of a region as tables and figures show it.

    >>> region_title("traffic_light")
    'traffic light'
    """
    return name.replace("_", " ")


def patches_of_region(probe: ProbeImages, layout: PatchLayout, name: str) -> list[tuple[int, ...]] | None:
    """Patches of the network that make up a region of each image; none for an image without the region.

    A patch of the data set is one patch of the network, or several whole ones.

    Args:
        probe: Images with their ground truth.
        layout: Patches of the network.
        name: The region.

    Returns:
        Patch indices of each image, row by row; None where :func:`ground_truth_fits` is false.

    Raises:
        UserError: If a region has a patch that is not in its grid.
    """
    if probe.ground_truth is None or not ground_truth_fits(probe, layout):
        return None
    found = []
    for number, truth in enumerate(probe.ground_truth, start=1):
        patches, count = truth.regions.get(name, ()), truth.grid[0] * truth.grid[1]
        if outside := [patch for patch in patches if not 0 <= patch < count]:
            raise UserError(f"region {name!r} of image {number} must hold patches in 0..{count - 1}, got {outside}")
        found.append(tuple(finer for patch in patches for finer in _cover(patch, truth.grid, layout.grid_size)))
    return found


def ground_truth_patches(probe: ProbeImages, layout: PatchLayout, device: str) -> GroundTruthPatches | None:
    """Ground truth of a batch as masks over the network's patches; None where it is unknown or does not fit.

    Raises:
        UserError: If a region has a patch that is not in its grid, or if an edge names no region.
    """
    if probe.ground_truth is None or not ground_truth_fits(probe, layout):
        return None
    shape = (len(probe.ground_truth), layout.grid_size[0] * layout.grid_size[1])
    regions = {}
    for name in dict.fromkeys(name for truth in probe.ground_truth for name in truth.regions):
        mask = torch.zeros(shape, dtype=torch.bool)
        for image, patches in enumerate(patches_of_region(probe, layout, name) or ()):
            mask[image, list(patches)] = True
        regions[name] = mask.to(device)
    edges = tuple(dict.fromkeys(edge for truth in probe.ground_truth for edge in truth.edges))
    if unknown := [name for edge in edges for name in edge if name not in regions]:
        raise UserError(f"edges must join regions of {', '.join(regions)}, got {', '.join(unknown)}")
    return GroundTruthPatches(regions, edges)


def ground_truth_fits(probe: ProbeImages, layout: PatchLayout) -> bool:
    """Whether there is ground truth, and each of its patches consists of whole patches of the network."""
    if not probe.ground_truth:
        return False
    grid, size = layout.grid_size, tuple(probe.images.shape[-2:])
    if layout.patch_size is not None and size != tuple(
        count * side for count, side in zip(grid, layout.patch_size, strict=True)
    ):
        return False
    grids = {truth.grid for truth in probe.ground_truth}
    return all(finer % count == 0 for own in grids for finer, count in zip(grid, own, strict=True))


def why_ground_truth_is_unused(probe: ProbeImages, layout: PatchLayout) -> str:
    """Message for the user about ground truth that cannot be used; empty where there is none, or where it fits."""
    if not probe.ground_truth or ground_truth_fits(probe, layout):
        return ""
    own, grid = (" by ".join(map(str, each)) for each in (probe.ground_truth[0].grid, layout.grid_size))
    return (
        f"the data set's ground truth is in {own} patches, which are not whole patches of the network's {grid}: "
        "it is neither marked nor judged"
    )


def _cover(patch: int, own: tuple[int, int], grid: tuple[int, int]) -> list[int]:
    """Patches of the network that a patch of the data set consists of."""
    (row, col), down, across = divmod(patch, own[1]), grid[0] // own[0], grid[1] // own[1]
    return [(row * down + r) * grid[1] + col * across + c for r in range(down) for c in range(across)]
