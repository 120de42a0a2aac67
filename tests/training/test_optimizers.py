import pytest
import timm
import torch
from timm.optim import Muon

from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.training.optimizers import build_optimizer

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 2, "num_heads": 4}


def groups_of(net, optimizer) -> dict[str, dict]:
    """The group of each parameter by its name."""
    by_id = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_norms_biases_positions_and_prefix_tokens_are_not_decayed(name):
    net = VisionTransformer(**SIZES, reg_tokens=2, init_values=0.1, qk_norm=True)
    groups = groups_of(net, build_optimizer(net, name, lr=0.01, weight_decay=0.05))
    decayed = {name for name, group in groups.items() if group["weight_decay"] > 0}
    matrices = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    expected = {f"blocks.{i}.{matrix}.weight" for i in (0, 1) for matrix in matrices}
    assert decayed == expected | {"patch_embed.proj.weight", "head.weight"}


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_muon_works_on_the_matrices_between_tokens_and_adamw_on_the_rest(stem):
    net = VisionTransformer(**SIZES, reg_tokens=2, stem=stem, affinity="additive")
    optimizer = build_optimizer(net, "muon", lr=0.01, weight_decay=0.05)
    assert isinstance(optimizer, Muon)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    by_muon = {name for name, parameter in net.named_parameters() if "momentum_buffer" in optimizer.state[parameter]}
    matrices = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert by_muon == {f"blocks.{i}.{matrix}.weight" for i in (0, 1) for matrix in matrices}


def test_muon_leaves_matrices_that_are_not_decayed_to_adamw():
    net = timm.create_model("beit_base_patch16_224", img_size=32, embed_dim=48, depth=1, num_heads=4, num_classes=10)
    optimizer = build_optimizer(net, "muon", lr=0.01, weight_decay=0.05)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    (table,) = (each for name, each in net.named_parameters() if name.endswith("relative_position_bias_table"))
    assert table.ndim == 2
    assert "momentum_buffer" not in optimizer.state[table]
    assert "momentum_buffer" in optimizer.state[net.blocks[0].mlp.fc1.weight]


def test_an_unknown_optimizer_is_refused_with_the_closest_name():
    with pytest.raises(UserError, match="unknown optimizer 'adamv', did you mean"):
        build_optimizer(VisionTransformer(**SIZES), "adamv", 0.1, 0.0)


def test_the_state_of_an_optimizer_that_was_not_fused_goes_on_in_one_operation():
    def trained(fused: bool, state: dict | None = None) -> tuple[torch.Tensor, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        optimizer = build_optimizer(net, "adamw", lr=0.01, weight_decay=0.05)
        if not fused:
            for group in optimizer.param_groups:
                group["fused"] = None
        if state:
            optimizer.load_state_dict(state)
        for _ in range(2):
            net(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        return net.weight.detach(), optimizer

    old = trained(fused=False)[1].state_dict()
    assert {group["fused"] for group in old["param_groups"]} == {None}
    weight, optimizer = trained(fused=True, state=old)
    assert {group["fused"] for group in optimizer.param_groups} == {True}
    assert {float(state["step"]) for state in optimizer.state.values()} == {4.0}
    torch.testing.assert_close(weight, trained(fused=True, state=old)[0])
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(old | {"param_groups": old["param_groups"][:1]})
