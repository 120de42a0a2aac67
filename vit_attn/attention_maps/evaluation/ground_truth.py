"""Ground truth of images in the patches of a network, whose grid may be finer than the data set's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from vit_attn.data_protocol import GroundTruth, ProbeImages
from vit_attn.errors import UserError, did_you_mean


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


def ground_truth_in_patches(probe: ProbeImages, layout: PatchLayout) -> list[GroundTruth] | None:
    """Ground truth of each image in patches of the network; None where it is unknown or does not fit.

    A patch of the data set is one patch of the network, or several whole ones.

    Args:
        probe: Images with their ground truth.
        layout: Patches of the network.

    Raises:
        UserError: If a region has a patch that is not in its grid, or if no image has an answer's region.
    """
    if probe.ground_truth is None or not ground_truth_fits(probe, layout):
        return None
    _check_answers(probe.ground_truth)
    converted = []
    for number, truth in enumerate(probe.ground_truth, start=1):
        regions, count = {}, truth.grid[0] * truth.grid[1]
        for name, patches in truth.regions.items():
            if outside := [patch for patch in patches if not 0 <= patch < count]:
                raise UserError(f"region {name!r} of image {number} must hold patches in 0..{count - 1}, got {outside}")
            regions[name] = tuple(finer for patch in patches for finer in _cover(patch, truth.grid, layout.grid_size))
        converted.append(GroundTruth(regions, layout.grid_size, truth.answer, truth.edges))
    return converted


def ground_truth_patches(probe: ProbeImages, layout: PatchLayout, device: str) -> GroundTruthPatches | None:
    """Ground truth of a batch as masks over the network's patches; None where it is unknown or does not fit.

    Raises:
        UserError: If a region has a patch that is not in its grid, or if an edge or an answer names no region.
    """
    ground_truth = ground_truth_in_patches(probe, layout)
    if ground_truth is None:
        return None
    shape = (len(ground_truth), layout.grid_size[0] * layout.grid_size[1])
    regions = {}
    for name in dict.fromkeys(name for truth in ground_truth for name in truth.regions):
        mask = torch.zeros(shape, dtype=torch.bool)
        for image, truth in enumerate(ground_truth):
            mask[image, list(truth.regions.get(name, ()))] = True
        regions[name] = mask.to(device)
    edges = tuple(dict.fromkeys(edge for truth in ground_truth for edge in truth.edges))
    if unknown := [name for edge in edges for name in edge if name not in regions]:
        raise UserError(f"edges must join regions of {', '.join(regions)}, got {', '.join(unknown)}")
    return GroundTruthPatches(regions, edges)


def ground_truth_fits(probe: ProbeImages, layout: PatchLayout) -> bool:
    """Test for ground truth each of whose patches consists of whole patches of the network."""
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


def _check_answers(ground_truth: Sequence[GroundTruth]) -> None:
    """Refuse an answer that no image has as a region; in some images it may be missing."""
    known = dict.fromkeys(name for truth in ground_truth for name in truth.regions)
    for number, truth in enumerate(ground_truth, start=1):
        if truth.answer not in known:
            raise UserError(
                f"the answer of image {number} must be a region of {', '.join(known) or 'some image'}, got "
                f"{truth.answer!r}{did_you_mean(truth.answer, known)}"
            )


def _cover(patch: int, own: tuple[int, int], grid: tuple[int, int]) -> list[int]:
    """Patches of the network that a patch of the data set consists of."""
    (row, col), down, across = divmod(patch, own[1]), grid[0] // own[0], grid[1] // own[1]
    return [(row * down + r) * grid[1] + col * across + c for r in range(down) for c in range(across)]
