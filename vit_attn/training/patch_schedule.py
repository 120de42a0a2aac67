"""Coarse patches at the beginning of a run, hence fewer tokens, and the network's own patches after them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from timm.layers import PatchEmbed
from torch import nn
from torch.optim import Optimizer

from vit_attn.checkpoints.contents import PATCH_SIZE
from vit_attn.errors import UserError
from vit_attn.training.ema import EMA, averaged_networks
from vit_attn.training.freezing import renew_ddp

COARSE_STEPS = "coarse_steps"
"""Key of a checkpoint for the number of the run's steps with coarse patches."""


class PatchSchedule:
    """Trains a network with coarse patches for the first part of a run, and with its own patches after that.

    With patches twice as wide, there are a quarter of the tokens. Patch and position embeddings are resampled as timm
    does when it loads weights for another patch size; everything else continues, the optimiser's state included.

    Args:
        net: The network, with its own patches.
        coarse: Side of the coarse patches in pixels, a multiple of the network's; None for none.
        until: Fraction of the run's steps with coarse patches.

    Raises:
        UserError: If the network's patches cannot change so.

    References:
        Beyer 2022, "FlexiViT: one model for all patch sizes", arXiv 2212.08013, section 3.1, for the resampling.
        Tan 2021, "EfficientNetV2: smaller models and faster training", arXiv 2104.00298, section 4, for training that
        begins with less detail.
    """

    def __init__(self, net: nn.Module, coarse: int | None, until: float) -> None:
        self.net, self.coarse, self.until = net, coarse, until
        self.own = _patch_size(net)
        self.steps: int | None = None
        """Steps of the run with coarse patches, once they are known."""
        if not 0 <= until < 1 or (coarse is None) != (until == 0):
            raise UserError(
                "coarse patches need both coarse_patch_size, in pixels, and coarse_until, a fraction of the run in "
                f"(0, 1), got {coarse} and {until}"
            )
        if coarse is not None:
            self._check(coarse)

    def _check(self, coarse: int) -> None:
        embed: Any = getattr(self.net, "patch_embed", None)
        own, stem = self.own, isinstance(embed, PatchEmbed) and isinstance(embed.proj, nn.Conv2d)
        if own is None or own[0] != own[1] or not stem or not hasattr(self.net, "set_input_size"):
            raise UserError(
                f"coarse_patch_size={coarse}: the patches of {type(self.net).__name__} cannot change, which takes a "
                "linear map of square patches as its stem, and set_input_size"
            )
        positions = getattr(self.net, "pos_embed", None)
        if positions is not None and not isinstance(positions, nn.Parameter):
            raise UserError(f"coarse_patch_size={coarse} needs learned or rotary positions: pos_embed=learn or rope")
        if coarse <= own[0] or coarse % own[0] or any(side % coarse for side in embed.img_size):
            height, width = embed.img_size
            raise UserError(
                f"coarse_patch_size must be a multiple of the network's patches of {own[0]} pixels, larger than these, "
                f"and divide the images of {height}x{width} pixels, got {coarse}"
            )

    @property
    def is_coarse(self) -> bool:
        """Whether the network has coarse patches now."""
        return _patch_size(self.net) != self.own

    def begin(self, build: Callable[[dict[str, int]], nn.Module] | None) -> None:
        """Give the network its coarse patches.

        Args:
            build: Builds a network with random weights, which replace the network's, by its options; None to resample
                the network's own weights.

        Raises:
            UserError: If the network cannot have such patches, or if weights other than embeddings depend on them.
        """
        if self.coarse is None:
            return
        shapes = {name: tensor.shape for name, tensor in self.net.named_parameters()}
        set_patch_size(self.net, self.coarse)
        changed = [name for name, tensor in self.net.named_parameters() if tensor.shape != shapes[name]]
        if others := [name for name in changed if not name.startswith(("patch_embed.", "pos_embed"))]:
            raise UserError(
                f"coarse_patch_size={self.coarse}: {others[0]} of {type(self.net).__name__} would change its shape, "
                "which only patch and position embeddings may"
            )
        if build is not None:
            self.net.load_state_dict(build({"patch_size": self.coarse}).state_dict())

    def check_trainer(self, trainer: Any) -> None:
        """Refuse a strategy that shards parameters, and callbacks that keep copies, whose shapes would not change.

        Args:
            trainer: Lightning's trainer, or None.

        Raises:
            UserError: If the trainer has such a one.
        """
        if self.coarse is None or trainer is None:
            return
        averages = (StochasticWeightAveraging, WeightAveraging)
        others = [each for each in getattr(trainer, "callbacks", None) or [] if isinstance(each, averages)]
        refused: dict[Any, str] = {each: "model.ema for averages" for each in others if not isinstance(each, EMA)}
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            refused[trainer.strategy] = "one device or ddp"
        for each, needed in refused.items():
            raise UserError(f"coarse_patch_size needs {needed}, not {type(each).__name__}: leave one of them out")

    def plan(self, total: float) -> None:
        """Set the step at which the patches change, unless a resumed run has it from its checkpoint.

        Args:
            total: Steps of the run.
        """
        if self.steps is None:
            self.steps = int(self.until * total)

    def change_when_due(self, trainer: Any, module: nn.Module, recompile: bool) -> bool:
        """Change to the network's own patches at the step that begins with them; averaged weights change alike.

        Args:
            trainer: Lightning's trainer.
            module: The module that its strategy wraps.
            recompile: Whether the network is compiled.

        Returns:
            Whether the patches changed.
        """
        if self.own is None or not self.is_coarse or trainer.global_step < (self.steps or 0):
            return False
        before = _grid(self.net)
        for optimizer in trainer.optimizers:
            replace_parameters(optimizer, self.net, lambda: set_patch_size(self.net, self.own))
        for callback in trainer.callbacks:
            if isinstance(callback, EMA):
                callback.change(lambda task: set_patch_size(task.net, self.own))
        renew_ddp(trainer.strategy, module)
        if recompile:  # else the second shape would be compiled as a dynamic one
            torch.compiler.reset()
        rank_zero_info(
            f"step {trainer.global_step}: patches of {self.own[0]} pixels from here, {_grid(self.net)} instead of "
            f"{before}"
        )
        return True

    def describe(self) -> str:
        """Describe the schedule for the report of a run; empty where all its patches are the network's own."""
        if self.coarse is None or self.own is None:
            return ""
        return f"of {self.coarse} pixels until step {self.steps}, then of {self.own[0]}"

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Store the steps with coarse patches, and their size while they are coarse."""
        if self.coarse is not None:
            checkpoint[COARSE_STEPS] = self.steps
        if (size := _patch_size(self.net)) is not None and self.is_coarse:
            checkpoint[PATCH_SIZE] = size[0]

    def load(self, checkpoint: Mapping[str, Any], trainer: Any) -> None:
        """Give the network, and averages of it, the patches of a checkpoint, before its weights are loaded.

        Args:
            checkpoint: Content of the checkpoint.
            trainer: Lightning's trainer, if there is one.
        """
        self.steps = checkpoint.get(COARSE_STEPS)
        size = (checkpoint[PATCH_SIZE],) * 2 if PATCH_SIZE in checkpoint else self.own
        for net in (self.net, *averaged_networks(trainer)):
            if size is not None and size != _patch_size(net):
                set_patch_size(net, size)


def set_patch_size(net: Any, size: int | tuple[int, int]) -> None:
    """Change the patches of a network; what trains or is frozen stays so.

    Args:
        net: A network with timm's ``set_input_size``.
        size: Side of a patch in pixels, or height and width.

    Raises:
        UserError: If its patches cannot have that size.
    """
    trains = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    try:
        net.set_input_size(patch_size=(size, size) if isinstance(size, int) else size)
    except UserError:
        raise
    except (AttributeError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{type(net).__name__} cannot have patches of {size} pixels: {error}") from error
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(trains[name])


def match_patches(net: nn.Module, other: nn.Module) -> None:
    """Give a network the patches of another, where they differ.

    Raises:
        UserError: If its patches cannot change so.
    """
    size = _patch_size(other)
    if size is not None and size != _patch_size(net):
        set_patch_size(net, size)


def replace_parameters(optimizer: Optimizer, net: nn.Module, change: Callable[[], None]) -> None:
    """Change a network and put its new parameters in the old ones' place in an optimiser.

    State of a parameter whose shape changed begins anew; all other state is kept.

    Args:
        optimizer: Optimiser of the network's parameters.
        net: The network.
        change: Replaces some of its parameters, under the same names.
    """
    before = dict(net.named_parameters())
    change()
    after = dict(net.named_parameters())
    replaced = {before[name]: new for name, new in after.items() if new is not before[name]}
    for group in optimizer.param_groups:
        group["params"][:] = [replaced.get(each, each) for each in group["params"]]
    for old, new in replaced.items():
        state = optimizer.state.pop(old, None)
        if state is not None and old.shape == new.shape:
            optimizer.state[new] = state


def _patch_size(net: nn.Module) -> tuple[int, int] | None:
    """Height and width of the patches in pixels; None if the network has none that it names so."""
    size: Any = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    return (size, size) if isinstance(size, int) else size


def _grid(net: Any) -> str:
    rows, cols = net.patch_embed.grid_size
    return f"{rows}x{cols}"
