"""Sanity check by re-initialised weights: a map that stays the same says nothing about what the network learned."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.checks import check_map_pair, whole
from vit_attn.attention_maps.recording.attention_modules import attention_modules
from vit_attn.attention_maps.recording.interceptor import remove_hooks
from vit_attn.attention_maps.recording.network_checks import check_network, check_parameters
from vit_attn.errors import UserError


def randomization_check(
    net: nn.Module,
    maps: Callable[[nn.Module], Mapping[str, Float[Tensor, "B P"]]],
    stages: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Float[Tensor, "stages B"]]:
    """Rank correlation of each image's map with that of the same network with re-initialised weights; 1 is no change.

    Args:
        net: A vision transformer; it, its gradients and the random state stay as they are.
        maps: Computes maps by name from a network, for images and target classes that it holds.
        stages: Numbers of parameter groups to re-initialise, from the head on, as for :func:`reinitialised`; by default
            one stage with all of them.
        seed: Seed of the new weights.

    Returns:
        By name, one row per stage.

    Raises:
        UserError: If a stage does not exist, or if the maps are not finite or not one row per image.

    References:
        Adebayo 2018, "Sanity checks for saliency maps", arXiv 1810.03292, section 3.
    """
    trained, rows = maps(net), []
    if stages is not None and not (isinstance(stages, Iterable) and list(stages)):
        raise UserError(f"stages must be numbers of re-initialised parameter groups, such as [1], got {stages}")
    for stage in (len(parameter_groups(net)),) if stages is None else stages:
        other = maps(reinitialised(net, stage, seed))
        rows.append({name: rank_correlation(trained[name], other[name]) for name in trained})
    return {name: torch.stack([row[name] for row in rows]) for name in trained}


def reinitialised(net: nn.Module, groups: int | None = None, seed: int = 0) -> nn.Module:
    """Copy a network with re-initialised weights: each tensor from a normal distribution of its own mean and std.

    So the copy's attention is about as sharp as before and its norms keep their scale, in any family of networks.

    Args:
        net: A network, which is left as it was.
        groups: Number of parameter groups to re-initialise, as :func:`parameter_groups` lists them, the head first; by
            default all.
        seed: Seed of the new weights; a tensor's new weights do not depend on ``groups``.

    Raises:
        UserError: If there are fewer groups, or no weights.
    """
    known = parameter_groups(net)
    count = len(known) if groups is None else whole("groups", groups, least=0)
    if count > len(known):
        raise UserError(f"groups must be in 0..{len(known)}, got {groups}")
    chosen = {name for group in known[:count] for name in group}
    generator = torch.Generator().manual_seed(whole("seed", seed, least=0))
    with torch.inference_mode(False), torch.no_grad():
        other = remove_hooks(copy.deepcopy(net))
        for name, parameter in other.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, device="cpu", dtype=torch.float32)
            if name in chosen:
                values = parameter.float()
                std = values.std(correction=0)
                parameter.copy_((values.mean() + std * noise.to(values.device)).to(parameter.dtype))
    return other


def parameter_groups(net: nn.Module) -> list[list[str]]:
    """Names of parameters from the head down: after the last block, each block from the last on, before the first.

    A block is the largest module that holds one attention and no other.

    Raises:
        UserError: If the network has no attention, or no parameters that hold weights.
    """
    check_network(net)
    check_parameters(net)
    if not any(True for _ in net.parameters()):
        raise UserError(f"{type(net).__name__} has no parameters, so none can be re-initialised")
    attentions = list(attention_modules(net).values())
    blocks = [_block_of(name, attentions) for name in attentions]
    after: list[str] = []
    inside: dict[str, list[str]] = {block: [] for block in blocks}
    before: list[str] = []
    for name, _ in net.named_parameters():
        block = next((block for block in blocks if name.startswith(block + ".")), None)
        if block is not None:
            inside[block].append(name)
        else:
            (after if any(inside.values()) else before).append(name)
    return [after, *(inside[block] for block in reversed(blocks)), before]


def _block_of(name: str, attentions: Sequence[str]) -> str:
    block = name
    while "." in block:
        parent = block.rpartition(".")[0]
        if any(other.startswith(parent + ".") for other in attentions if other != name):
            break
        block = parent
    return block


def rank_correlation(a: Float[Tensor, "B P"], b: Float[Tensor, "B P"]) -> Float[Tensor, " B"]:
    """Spearman's rank correlation by row; equal values share their mean rank; 0 where only one side is constant.

    >>> rank_correlation(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[3.0, 2.0, 1.0]])).tolist()
    [-1.0]

    Raises:
        UserError: If the maps differ in shape, or are not finite.
    """
    check_map_pair(a, b)
    x, y = _centred_ranks(a), _centred_ranks(b)
    norm = x.norm(dim=-1) * y.norm(dim=-1)
    both_constant = (x == 0).all(dim=-1) & (y == 0).all(dim=-1)
    return torch.where(both_constant, 1.0, (x * y).sum(dim=-1) / norm.clamp_min(1e-12)).float()


def _centred_ranks(x: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
    """Number of lower values minus number of higher ones: twice the rank, centred."""
    return torch.stack([(row[:, None] > row).double().sum(-1) - (row[:, None] < row).double().sum(-1) for row in x])
