import pytest
from torch import nn

from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.checkpoints.timm_config import timm_config
from vit_attn.errors import UserError


def test_a_network_into_which_timm_loads_no_weights_is_refused():
    card = ModelCard("own_net", {}, None, (3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(
        UserError, match=r"weights of own_net: have it built by .*build_model_with_cfg.* \.pt2 or \.onnx"
    ):
        timm_config(card, nn.Linear(3, 2))
