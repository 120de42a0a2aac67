"""Memory and forward passes that an evaluation takes, from which its batches are chosen."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.baselines import RANDOM_ORDERS
from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.knockouts import count_edges
from vit_attn.attention_maps.evaluation.measures import KNOCKED_OUT, RECORDED_NETWORKS, RECORDING_COST
from vit_attn.attention_maps.methods.registry import attribution_methods
from vit_attn.attention_maps.recording.record import record

HOST_BYTES, DEVICE_BYTES = 2**27, 2**31
"""Bytes that the recordings with gradients of one part of the images may hold: 128 MiB on a CPU, where a part of few
images is as fast as one of many and less is lost by a kill, and 2 GiB on a GPU."""
FORWARD_BYTES = 2**27
"""Bytes that a forward without gradients may hold at its largest layer: 128 MiB."""
MOST_RECORDED, MOST_AT_ONCE = 64, 128
"""Images of a part, and of a forward without gradients, at most."""


class RecordingSize(NamedTuple):
    """Memory that the recording of an image with gradients holds.

    Args:
        graph: Bytes that the network's graph keeps until the gradients are computed, without parameters.
        layers: Number of attention layers.
        bound: Bytes that the recordings of all images of a part may hold.
    """

    graph: int
    layers: int
    bound: int

    @property
    def images_at_once(self) -> int:
        """Images whose recordings, of LeGrad and of the other methods, fit the bound, at least one."""
        return min(MOST_RECORDED, max(1, self.bound // (2 * self.graph)))

    @property
    def forward_batch(self) -> int:
        """Images of a forward without gradients, one of whose layers fits ``FORWARD_BYTES``, at least one."""
        return min(MOST_AT_ONCE, max(1, FORWARD_BYTES * self.layers // self.graph))


def recording_size(net: nn.Module, images: Float[Tensor, "B C height width"]) -> RecordingSize:
    """Measure the recording of an image, or of several together, by the tensors that its graph saves."""
    own = {each.untyped_storage().data_ptr() for each in (*net.parameters(), *net.buffers())}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), record(net, gradients=True) as recording:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = net(images)  # alive until all is counted, so that no address is used twice
        del output
    bound = HOST_BYTES if images.device.type == "cpu" else DEVICE_BYTES
    return RecordingSize(sum(saved.values()), len(recording), bound)


def forwards_per_image(batch: EvalBatch, steps: int) -> int:
    """Forward passes of an evaluation per image, where recordings count as ``RECORDING_COST`` each."""
    methods = sum(method.supports(batch.net) for method in attribution_methods().values())
    with torch.no_grad(), record(batch.net) as recording:
        batch.net(batch.images[:1])
    patches = recording.num_tokens - recording.num_prefix_tokens
    orders = methods + 1 + RANDOM_ORDERS
    curves = 2 + (steps - 1) * (2 * (methods + 1) + RANDOM_ORDERS)
    knocked_out = orders * sum(count <= patches for count in KNOCKED_OUT)
    heads = sum(layer.calls[0].q.shape[1] for layer in recording)
    return 1 + RECORDED_NETWORKS * RECORDING_COST + curves + knocked_out + heads + count_edges(batch)
