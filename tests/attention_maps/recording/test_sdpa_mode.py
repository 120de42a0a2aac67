"""Every mask and projection of ``nn.MultiheadAttention`` is recorded as the module computes it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vit_attn.attention_maps import record
from vit_attn.attention_maps.recording.layout import TokenLayout, register_layout

B, H, N = 2, 2, 6


class Masked(nn.Module):
    """One attention over six patches, with a mask."""

    def __init__(self, width: int | None, **masks: Tensor) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(16, H, kdim=width, vdim=width, batch_first=True)
        self.keys, self.masks = nn.Linear(16, width or 16), masks

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = x.flatten(2).mT
        keys = self.keys(tokens)
        return self.attn(tokens, keys, keys, average_attn_weights=False, **self.masks)


register_layout(Masked, TokenLayout(0, (2, 3)))
CLOSED = torch.zeros(N, N, dtype=torch.bool)
CLOSED[1, 2] = CLOSED[4, :2] = True
PADDING = torch.zeros(B, N, dtype=torch.bool)
PADDING[0, 5] = PADDING[1, 3:] = True
MASKS: dict[str, dict[str, Tensor]] = {
    "boolean": {"attn_mask": CLOSED},
    "added": {"attn_mask": torch.arange(36.0).reshape(N, N) / 9},
    "of each image and head": {"attn_mask": torch.arange(144.0).reshape(B * H, N, N) / 40},
    "padding": {"key_padding_mask": PADDING},
    "added padding": {"key_padding_mask": torch.where(PADDING, -1e9, 0.0)},
    "both": {"attn_mask": CLOSED, "key_padding_mask": PADDING},
    "none": {},
}


@pytest.mark.parametrize("width", [None, 12])
@pytest.mark.parametrize("mask", MASKS)
def test_masks_and_separate_projections_are_recorded(mask: str, width: int | None):
    net, x = Masked(width, **MASKS[mask]).eval(), torch.randn(B, 16, 2, 3)
    output: Any
    output, weights = net(x)
    with torch.no_grad(), record(net) as recording:
        same, returned = net(x)
    assert_close(same, output)
    assert_close(returned, weights)
    assert_close(recording[0].weights(), weights)
