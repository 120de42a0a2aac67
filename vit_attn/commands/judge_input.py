"""Network and images of ``judge``: those of a run or a data set, or the user's own pictures."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import yaml
from torch import nn

from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.checkpoints.finetune import resolve_start
from vit_attn.checkpoints.io import find_card
from vit_attn.checkpoints.model_card import DATA_ARGS, ModelCard
from vit_attn.checkpoints.paths import describe_missing, looks_like_path, weights_file
from vit_attn.checkpoints.weights import load_weights
from vit_attn.commands.judge_images import ImageSource, PictureSource, ProbeSource, report_few_patches
from vit_attn.commands.parsing.yaml_limits import load_yaml
from vit_attn.commands.run.checkpoint import run_folder
from vit_attn.commands.run.stored_config import evaluation_settings, read_run_config
from vit_attn.console import CONSOLE
from vit_attn.data import ImageData
from vit_attn.errors import UserError, one_line
from vit_attn.inference.images import find_images, without_repeats
from vit_attn.inference.network import open_checkpoint, open_network
from vit_attn.model.build import build_net

NO_NETWORK = "judge needs a network: --model RUN, or --model NAME --images FOLDER, or --arch NAME --weights FILE"
RANDOM_WEIGHTS = "the network's weights are random: its maps and measures say nothing about a trained network"


class JudgeInput(NamedTuple):
    """Network and images of a command.

    Args:
        net: The network, on its device.
        name: Its architecture.
        images: The images.
        run: Folder of the run that trained the network, if it is known.
    """

    net: nn.Module
    name: str
    images: ImageSource
    run: Path | None


def open_input(args: argparse.Namespace, device: torch.device) -> JudgeInput:
    """Load the network and find its images.

    Args:
        args: Options of the command; ``images`` has paths only.
        device: Device of the network.

    Raises:
        UserError: If no network is named, if its weights are unknown, or if network and images disagree.
    """
    if args.model is not None and (args.arch or args.arch_options):
        raise UserError("--model names the network: leave out --arch and --arch_options")
    if args.model is None and args.arch is None:
        raise UserError(NO_NETWORK)
    if args.weights == "none":
        CONSOLE.say(f"vit-attn: {RANDOM_WEIGHTS}", sys.stderr)
    if args.images:
        return _of_pictures(args, device)
    return _of_dataset(args, str(device))


def _of_pictures(args: argparse.Namespace, device: torch.device) -> JudgeInput:
    if args.dataset or args.root:
        raise UserError("--images are judged instead of a data set: leave out --dataset and --root")
    if args.model is None:
        raise UserError("pictures are judged by --model NAME|RUN|FILE, which knows their size: not by --arch")
    model = str(_checkpoint_of(args.model) or args.model)
    files = without_repeats(find_images(args.images))
    torch.manual_seed(args.seed)  # of random weights, so that the same command goes on with them
    network = open_network(model, args.weights, args.img_size)
    network.net.to(device)
    source = PictureSource(network, files, device, ", ".join(args.images))
    images = torch.zeros(1, network.card.in_chans, *network.card.img_size, device=device)
    report_few_patches(token_layout(network.net, images).grid_size)
    return JudgeInput(network.net, network.card.architecture, source, run_folder(model))


def _of_dataset(args: argparse.Namespace, device: str) -> JudgeInput:
    if args.img_size is not None:
        raise UserError("a data set has its own image size: --img_size is for --model by name with --images")
    args = _model_as_arch(args)
    given = _key_values(args.arch_options)
    weights = args.weights or args.ckpt_path
    is_run = args.arch is None and str(args.ckpt_path).endswith(".ckpt")
    if is_run and (given or args.weights):
        raise UserError("a checkpoint brings its own options and weights: leave out --arch_options and --weights")
    if weights is None and not given.get("pretrained"):
        raise UserError("the network would be untrained: add --weights FILE, or --arch_options pretrained=true")
    if is_run:
        network = open_checkpoint(Path(args.ckpt_path))
        net, arch, data = network.net, network.card.architecture, _data(args)
        _check_data(data, network.card.model_args)
        _adopt_card(find_card(args.ckpt_path), data)
    else:
        weights = None if weights == "none" else weights
        start = resolve_start(weights, args.arch, given)
        data, arch = _data(args), start.arch
        _adopt_card(start.card, data)
        if start.arch_options.get("pretrained"):
            _check_head(arch, data)
        torch.manual_seed(args.seed)
        net = build_net(arch, data.num_classes, data.img_size, data.in_chans, start.arch_options)
        for change in load_weights(net, weights) if weights else ():
            CONSOLE.say(f"vit-attn: {one_line(f'{weights}: {change}')}", sys.stderr)
    source = ProbeSource(net.eval().to(device), data, args.num_images, device, _dataset(args))
    return JudgeInput(net, arch, source, _run_of(args))


def _model_as_arch(args: argparse.Namespace) -> argparse.Namespace:
    """Express ``--model`` by the options that name a network of a data set's classes."""
    if args.model is None:
        return argparse.Namespace(**vars(args) | {"ckpt_path": None})
    known = vars(args) | {"model": None, "ckpt_path": None}
    if path := _checkpoint_of(args.model):
        if args.weights:
            raise UserError(f"{args.model} has its own weights: leave out --weights")
        return argparse.Namespace(**known | {"ckpt_path": str(path)})
    if args.dataset is None:
        raise UserError(f"no images are known for {args.model}: add --images FOLDER, or --dataset NAME")
    pretrained = [] if args.weights else ["pretrained=true"]
    return argparse.Namespace(**known | {"arch": args.model, "arch_options": pretrained})


def _checkpoint_of(model: str) -> Path | None:
    """Find the file of weights that a path names, in the folder of a run its checkpoint; None for a name.

    Raises:
        UserError: If it is a path at which there are no weights.
    """
    path = weights_file(model)
    if path is None and (looks_like_path(model) or Path(model).is_dir()):
        raise UserError(describe_missing(model))
    return path


def _check_data(data: ImageData, model_args: Mapping[str, Any]) -> None:
    """Refuse images of another size, of other channels or of other classes than the network's."""
    for name in DATA_ARGS:
        here, there = (tuple(torch.tensor(each).flatten()) for each in (getattr(data, name), model_args[name]))
        if here != there:
            raise UserError(
                f"the checkpoint's network has {name}={model_args[name]}, but the data set has {getattr(data, name)}"
            )


def _adopt_card(card: ModelCard | None, data: ImageData) -> None:
    """Apply the normalisation and class order of weights; refuse those of other classes."""
    if card is not None and card.label_names and card.mean and len(card.label_names) == data.num_classes:
        data.load_state_dict(card.data_state())


def _check_head(arch: str, data: ImageData) -> None:
    """Refuse pretrained weights whose head has other classes, since another one would be random."""
    config = timm.get_pretrained_cfg(arch)
    if config is not None and config.num_classes != data.num_classes:
        raise UserError(
            f"{arch} has a head of {config.num_classes} classes, and {data.dataset} has {data.num_classes}: judge it "
            "on pictures, --model NAME --images FOLDER, or fine-tune it first"
        )


def _data(args: argparse.Namespace) -> ImageData:
    name, settings = _dataset(args), _settings(args)
    own = settings if settings.get("dataset") == name else {}
    of_images = ("img_size", "channels", "normalize", "skip_corrupt", "columns", "bits", "held_out")
    kept = {setting: own[setting] for setting in of_images if setting in own}
    data = ImageData(name, root=args.root or settings.get("root"), batch_size=1, **kept)
    data.prepare_data()
    return data


def _dataset(args: argparse.Namespace) -> str:
    name = args.dataset or _settings(args).get("dataset")
    if name is None:
        raise UserError(
            "no data set is known: the weights are not in the folder of a run with a config.yaml, so add --dataset NAME"
        )
    return name


def _settings(args: argparse.Namespace) -> Mapping[str, Any]:
    """Read the data settings of the checkpoint's run; empty without a run."""
    folder = _run_of(args)
    return evaluation_settings(read_run_config(folder / "config.yaml")).get("data", {}) if folder else {}


def _run_of(args: argparse.Namespace) -> Path | None:
    return run_folder(args.ckpt_path)


def _key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse options such as ``depth=3``, values as YAML reads them."""
    if wrong := [pair for pair in pairs if not pair.partition("=")[0] or "=" not in pair]:
        raise UserError(f"arch_options must be KEY=VALUE, got {', '.join(wrong)}")
    try:
        return {name: load_yaml(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    except yaml.YAMLError as error:
        raise UserError(f"arch_options must be KEY=VALUE: {' '.join(str(error).split())}") from error
