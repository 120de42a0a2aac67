"""Base class of interventions: changes of chosen layers' attention while a network runs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vit_attn.attention_maps.checks import indices
from vit_attn.attention_maps.recording.attention_modules import ends_with_pool
from vit_attn.attention_maps.recording.inputs import Inputs
from vit_attn.attention_maps.recording.interceptor import SDPAInterceptor
from vit_attn.attention_maps.recording.network_checks import uses_gradient_checkpointing
from vit_attn.attention_maps.recording.sdpa_call import SDPACall
from vit_attn.errors import UserError, some_of


class AttentionIntervention(SDPAInterceptor):
    """Interceptor that changes chosen layers, and requires that each of them was called.

    Args:
        net: A vision transformer.
        layers: Indices of the layers to change, -1 is the last; by default all.

    Raises:
        UserError: If a layer does not exist.
    """

    def __init__(self, net: nn.Module, layers: Sequence[int] | None) -> None:
        super().__init__(net)
        names = list(self.module_names.values())
        self.pool_name = names.pop() if ends_with_pool(self.net, self.module_names) else None
        self.last_layer = names[-1] if names else ""
        self.num_layers = len(names)
        chosen = range(self.num_layers) if layers is None else indices("layers", layers, self.num_layers)
        self.counts_from_last = any(each < 0 for each in ([] if layers is None else layers))
        self.layer_indices = {names[index]: index for index in chosen}
        self.targets = set(self.layer_indices)
        self.single_query: set[str] = set()
        """Modules that attended from one query, as a pool does."""

    def on_forward_start(self, images: Inputs) -> None:
        """Refuse a network whose backward pass would run without the change."""
        if torch.is_grad_enabled() and uses_gradient_checkpointing(self.net):
            raise UserError(
                "gradient checkpointing computes attention again in the backward pass, where nothing would be cut: "
                "call net.set_grad_checkpointing(False) or net.gradient_checkpointing_disable(), or use torch.no_grad()"
            )

    def check_called(self) -> None:
        """Check that the network itself was called.

        Raises:
            UserError: If it was not, so that nothing was changed.
        """
        if not self.was_called:
            raise UserError(
                "nothing was cut: call the network itself, no copy or replica of it, inside the `with` block, in the "
                "same thread"
            )

    def before_attention(self, name: str, call: SDPACall) -> None:
        """Apply the intervention to a chosen layer; refuse a pool in place of the last layer."""
        if call.q.shape[2] == 1 < call.k.shape[2]:
            self.single_query.add(name)
        if self.single_query == {self.last_layer} and (self.counts_from_last or name in self.targets):
            raise UserError(
                f"{name} of {type(self.net).__name__} attends from one query, so it is a pool and no layer: name the "
                "layers, counted from 0, or name the pool's class after a pool"
            )
        if name in self.targets:
            self.apply(name, call)

    def apply(self, name: str, call: SDPACall) -> None:
        """Change the call of a chosen layer or pool."""
        raise NotImplementedError

    def on_attention_outside_forward(self, name: str) -> None:
        """Refuse a chosen layer that runs outside a forward of the network."""
        if name in self.targets:
            raise UserError(
                f"{name} of {type(self.net).__name__} runs, but not in net(images), so nothing would be cut there: "
                "call the network itself, not its forward, forward_features or another part"
            )

    def on_forward_end(self, images: Inputs, output: Any) -> None:
        """Refuse a forward in which a chosen layer was not seen as a whole, or layers came in another order."""
        self.check_weights_used(self.targets)
        if unseen := sorted(self.targets - set(self.called_modules)):
            raise UserError(f"nothing was cut: {self.unseen_message(unseen)}")
        self.check_called_once()
        order = [name for name in self.called_modules if name in self.layer_indices]
        if order != (expected := sorted(order, key=self.layer_indices.__getitem__)):
            raise UserError(
                f"layers are numbered as their modules are listed, but these attend in another order: "
                f"{some_of(order)}, not {some_of(expected)}"
            )
