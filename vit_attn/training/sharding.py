"""Sharding of weights, gradients and optimiser state over devices: FSDP2."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
BROADCAST = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class FSDP2(ModelParallelStrategy):
    """Lightning's FSDP2 with checkpoints that any other strategy can resume; ``--trainer.strategy=fsdp2``.

    Lightning's own file numbers the optimiser's parameters in the order of the network, not of the optimiser. A run
    that is resumed from it on one device, or here from one device's, would give parameters the momentum of others.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Gather the optimiser's state on the first rank, by the optimiser's parameter numbers."""
        inner: Any = getattr(optimizer, "_optimizer", optimizer)  # lightning's wrapper
        full: Any = get_optimizer_state_dict(self._network, inner, options=FULL)
        if not self.is_global_zero:
            return {}
        numbers = {name: number for number, name in enumerate(self._names(inner))}
        by_number = {numbers[name]: each for name, each in full["state"].items()}
        return {"state": by_number, "param_groups": inner.state_dict()["param_groups"]}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load each device's shard of the weights and of the optimiser's state; return the rest of the file."""
        path = Path(self.broadcast(checkpoint_path))
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only is not False)
        set_model_state_dict(self._network, checkpoint.pop("state_dict"), options=BROADCAST)
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", ()), strict=False):
            names = self._names(optimizer)
            groups = [group | {"params": [names[i] for i in group["params"]]} for group in state["param_groups"]]
            by_name = {names[number]: each for number, each in state["state"].items()}
            full: Any = {"state": by_name, "param_groups": groups}
            set_optimizer_state_dict(self._network, optimizer, full, options=BROADCAST)
        return checkpoint

    @property
    def _network(self) -> nn.Module:
        if self.model is None:
            raise RuntimeError("the strategy has no network yet")
        return self.model

    def _names(self, optimizer: Optimizer) -> list[str]:
        """Names of the parameters in the optimiser's order."""
        names = {parameter: name for name, parameter in self._network.named_parameters()}
        return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


if "fsdp2" not in StrategyRegistry:
    StrategyRegistry.register("fsdp2", FSDP2, "FSDP2, checkpoints in one file")


def shard(net: nn.Module, mesh: DeviceMesh) -> None:
    """Shard each block and the rest of the network; the weights of a block are gathered while it is computed.

    With several nodes, each holds all weights, sharded over its devices, and gradients are averaged over the nodes.

    Args:
        net: The network.
        mesh: Devices, as Lightning arranges them: nodes on the first axis, the devices of each on the second.
    """
    if isinstance(net, FSDPModule):
        return
    for block in _blocks(net):
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)


def _blocks(net: nn.Module) -> Iterable[nn.Module]:
    blocks = getattr(net, "blocks", None)
    return blocks if isinstance(blocks, (nn.ModuleList, nn.Sequential)) else ()
