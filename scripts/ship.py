#!/usr/bin/env python
"""Put trained weights into the package, with what made them in the file's header, which the registry reads.

    .venv/bin/python scripts/ship.py coins_0.safetensors coins --commit 5c20e8f \
        --command 'scripts/forms_on_coins.py --device cuda' --measured 'validation accuracy 1.000, seed 0'

takes the weights of a network of the shape `vit_attn_coins_patch4_32`.
"""

import argparse
import json
from pathlib import Path

import timm
from safetensors.torch import save_file

from vit_attn.checkpoints.weights import load_weights
from vit_attn.data.datasets.registry import find_dataset
from vit_attn.model.zoo import TRAINED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("dataset", choices=["coins", "cifar10"])
    parser.add_argument("--commit", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--measured", required=True)
    args = parser.parse_args()

    net = timm.create_model(f"vit_attn_{args.dataset}_patch4_32")
    if changes := load_weights(net, args.weights):
        parser.error("; ".join(changes))
    source = find_dataset(args.dataset)
    said = {"class_names": source.class_names, "mean": source.mean, "std": source.std}
    said |= {"command": args.command, "commit": args.commit, "measured": args.measured}
    header = {name: json.dumps(value) for name, value in said.items()}
    save_file(net.state_dict(), TRAINED / f"{args.dataset}.safetensors", header)


if __name__ == "__main__":
    main()
