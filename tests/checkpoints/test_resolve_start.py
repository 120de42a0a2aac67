"""Starts from weights, without a run."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from jsonargparse import Namespace
from safetensors.torch import save_file

from vit_attn.checkpoints.finetune import apply_to_settings, apply_to_task, check_trainable, resolve_start
from vit_attn.checkpoints.model_card import DATA_KEY, ModelCard
from vit_attn.checkpoints.weights import save_weights
from vit_attn.errors import UserError

ARCH, OPTIONS = "vit_attn_tiny_patch4_32", {"embed_dim": 16, "depth": 1, "num_heads": 2}
COINS, TIMM = "vit_attn_coins_patch4_32", "vit_tiny_patch16_224"


def card(size: tuple[int, int] = (16, 24)) -> ModelCard:
    data_args = {"num_classes": 2, "img_size": size, "in_chans": 1}
    return ModelCard(ARCH, OPTIONS | data_args, ("cat", "dog"), (1, *size), (0.5,), (0.2,))


def exported(path: Path, size: tuple[int, int] = (16, 24)) -> str:
    save_weights(timm.create_model(ARCH, **card(size).model_args), path, card(size).metadata())
    return str(path)


def bare(path: Path) -> str:
    save_file({"a": torch.ones(1)}, path)
    return str(path)


def test_random_weights_are_those_of_the_default_network_or_the_one_that_is_named():
    start = resolve_start(None)
    assert (start.arch, start.arch_options, start.weights, start.pretrained, start.card) == (
        ARCH,
        {},
        None,
        False,
        None,
    )
    assert resolve_start(None, TIMM, {"depth": 2}).arch_options == {"depth": 2}


def test_the_option_pretrained_takes_the_weights_of_the_network():
    start = resolve_start(None, COINS, {"pretrained": True})
    assert (start.arch, start.weights, start.pretrained) == (COINS, COINS, True)
    assert start.card is not None
    assert start.card.mean == (0.25, 0.25, 0.25)


def test_a_name_brings_its_network_unless_another_one_is_named():
    start = resolve_start(f"{TIMM}.augreg_in21k")
    assert (start.arch, start.weights, start.pretrained) == (TIMM, f"{TIMM}.augreg_in21k", True)
    ours = resolve_start(f"{TIMM}.augreg_in21k", "vit_attn_tiny_patch16_224")
    assert (ours.arch, ours.pretrained) == ("vit_attn_tiny_patch16_224", False)
    assert ours.card == start.card


def test_a_file_brings_its_network_and_options_go_over_its_own(tmp_path: Path):
    weights = exported(tmp_path / "model.safetensors")
    for source in (weights, str(tmp_path)):
        start = resolve_start(source, arch_options={"depth": 2, "drop_path_rate": 0.1})
        assert (start.arch, start.weights, start.pretrained) == (ARCH, weights, False)
        assert start.arch_options == OPTIONS | {"depth": 2, "drop_path_rate": 0.1}
        assert start.card == card()
    with pytest.raises(UserError, match=rf"is of the network {ARCH}, not of {TIMM}: leave out model.arch"):
        resolve_start(weights, TIMM)


def test_bare_weights_need_a_network(tmp_path: Path):
    weights = bare(tmp_path / "a.safetensors")
    for source in (weights, "https://example.org/a.safetensors"):
        with pytest.raises(UserError, match=r"does not say which network it is of: name that, with model\.arch"):
            resolve_start(source)
    assert resolve_start(weights, TIMM).arch == TIMM
    assert resolve_start("gone.ckpt").arch == ARCH  # whoever reads it says that it is gone


def settings(weights: str, **data) -> tuple[Namespace, Namespace]:
    given = {"normalize": None, "channels": None, "img_size": None} | data
    return Namespace(weights=weights, arch=None, arch_options=None), Namespace(**given)


def test_settings_that_the_user_left_open_are_those_of_the_card(tmp_path: Path):
    weights = exported(tmp_path / "square.safetensors", (16, 16))
    model, data = settings(weights, channels=3)
    apply_to_settings(resolve_start(weights), model, data)
    assert (model.arch, model.arch_options) == (ARCH, OPTIONS)
    assert data == Namespace(normalize=weights, channels=3, img_size=16)


def test_a_size_that_is_not_square_is_a_height_and_a_width(tmp_path: Path):
    weights = exported(tmp_path / "wide.safetensors")
    model, data = settings(weights)
    apply_to_settings(resolve_start(weights), model, data)
    assert data == Namespace(normalize=weights, channels=1, img_size=[16, 24])


def test_without_a_card_the_network_alone_is_set(tmp_path: Path):
    weights = bare(tmp_path / "a.safetensors")
    for source in (weights, None):
        model, data = settings(source)
        apply_to_settings(resolve_start(source, TIMM), model, data)
        assert (model.arch, model.arch_options) == (TIMM, None)
        assert data == Namespace(normalize=None, channels=None, img_size=None)


def test_a_checkpoint_of_another_task_on_our_data_brings_their_normalisation(tmp_path: Path):
    path = tmp_path / "own.ckpt"
    torch.save({DATA_KEY: card((16, 16)).data_state(), "state_dict": {"a": torch.ones(1)}}, path)
    model, data = settings(str(path))
    apply_to_settings(resolve_start(str(path), TIMM), model, data)
    assert model.arch == TIMM
    assert data == Namespace(normalize=str(path), channels=1, img_size=16)


def test_random_weights_are_not_frozen(tmp_path: Path):
    for train, probe, message in (("head", 0.0, "train=head"), (2, 0.0, "train=2"), ("all", 0.1, "probe=0.1")):
        with pytest.raises(UserError, match=f"{message} freezes the rest of the network, whose weights are random"):
            check_trainable(resolve_start(None), train, probe)
        check_trainable(resolve_start(COINS), train, probe)
    check_trainable(resolve_start(None), "all", 0.0)


def task(start: str | None) -> SimpleNamespace:
    return SimpleNamespace(net=timm.create_model(ARCH, **card((16, 16)).model_args), start=start)


def messages(started: SimpleNamespace, names: tuple[str, ...], normalize: str | None) -> list[str]:
    """Return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        apply_to_task(started, names, normalize)
    return [str(each.message) for each in caught]


def test_a_head_of_as_many_other_classes_is_new_and_of_the_same_is_kept(tmp_path: Path, caplog):
    caplog.set_level("INFO")
    weights = exported(tmp_path / "a.safetensors", (16, 16))
    started = task(weights)
    head = started.net.head.weight
    assert messages(started, ("cat", "dog"), weights) == []
    assert messages(started, ("cat", "dog", "owl"), weights) == []  # its number of classes has replaced it before
    assert started.net.head.weight is head
    assert not caplog.messages
    assert messages(started, ("dog", "cat"), weights) == []  # which is normal
    (message,) = caplog.messages
    assert message.endswith("the head of other classes was left out; the new one is untrained")
    assert started.net.head.weight is not head


def test_weights_of_unknown_normalisation_are_warned_of(tmp_path: Path):
    weights = bare(tmp_path / "a.safetensors")
    (message,) = messages(task(weights), ("cat", "dog"), None)
    assert "a.safetensors does not say how its images were normalised" in message
    assert messages(task(weights), ("cat", "dog"), "imagenet") == []
    for start in (COINS, None, exported(tmp_path / "b.safetensors")):
        assert messages(task(start), ("a", "b", "c"), None) == []
