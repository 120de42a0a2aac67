"""Attention modules of a network, found by the names of their classes."""

from collections.abc import Mapping

from torch import nn

from vit_attn.errors import UserError


def module_names(net: nn.Module) -> dict[nn.Module, str]:
    """List all modules with their names, as ``named_modules`` does, without its recursion."""
    names: dict[nn.Module, str] = {}
    remaining = [("", net)]
    while remaining:
        name, module = remaining.pop()
        if module not in names:
            names[module] = name
            children = [(child, each) for child, each in module._modules.items() if each is not None]
            remaining += [(f"{name}.{child}" if name else child, each) for child, each in reversed(children)]
    return names


def attention_modules(net: nn.Module) -> dict[nn.Module, str]:
    """Find the innermost modules whose class is named after attention, with their names in the network.

    Raises:
        UserError: If there are none, or if their attention is in parallel.
    """

    def is_attention(module: nn.Module) -> bool:
        return any(part in type(module).__name__.lower() for part in ("attention", "attn", "xca"))

    names = module_names(net)
    found = {module: name for module, name in names.items() if is_attention(module) and module is not net}
    inner = {m: name for m, name in found.items() if not any(c in found for c in m.modules() if c is not m)}
    if parallel := [name for module, name in names.items() if type(module).__name__ == "ParallelThingsBlock"]:
        raise UserError(f"attention in parallel is no chain of layers: {', '.join(parallel)}")
    if not inner:
        raise UserError(
            f"{type(net).__name__} has no attention modules to record, which are those whose class is named after it, "
            "as MyAttention"
        )
    return inner


def ends_with_pool(net: nn.Module, attentions: Mapping[nn.Module, str]) -> bool:
    """Tell whether the last attention module is an attention pool and not a layer.

    The network's ``global_pool`` says so, or the name of a class that occurs once in the network: that of the module,
    or of a module around it that holds no other attention.

    Args:
        net: The network.
        attentions: Its attention modules, from :func:`attention_modules`.
    """
    if getattr(getattr(net, "timm_model", net), "global_pool", "") in ("map", "prr"):  # in Hugging Face's wrapper
        return True
    last = list(attentions)[-1]
    modules = list(module_names(net))
    classes = [type(module) for module in modules]
    pools = [m for m in modules if m is not net and "pool" in type(m).__name__.lower() and classes.count(type(m)) == 1]
    return any([c for c in m.modules() if c in attentions] == [last] for m in pools)
