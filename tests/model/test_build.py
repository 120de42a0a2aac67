import pytest
import timm
from torch import nn

from vit_attn.errors import UserError
from vit_attn.model.build import build_net


def own_net(pretrained=False, *, num_classes, img_size, in_chans, **options):
    """Build a network without ``build_model_with_cfg``, with all arguments that timm adds."""
    return nn.Linear(in_chans, num_classes, **options)


def test_all_arguments_that_timm_adds_are_named_at_once(monkeypatch):
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "own_net", own_net)
    with pytest.raises(UserError, match="take pretrained_cfg, pretrained_cfg_overlay, cache_dir as arguments"):
        build_net("own_net", 2, (8, 8), 3, {})
