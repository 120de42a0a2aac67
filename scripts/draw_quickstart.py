#!/usr/bin/env python
"""Draw the README's picture from a checkpoint of the quickstart: validation images and where the network looks.

.venv/bin/python scripts/draw_quickstart.py runs/quickstart/RUN/checkpoints/best.ckpt docs/images/quickstart.png
"""

import argparse

import numpy as np
from PIL import Image

from vit_attn.attention_maps import record
from vit_attn.attention_maps.view import views_of
from vit_attn.callbacks.attention_pictures import overlay, snapshot
from vit_attn.data import ImageData
from vit_attn.task import Classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("picture")
    parser.add_argument("--images", type=int, default=4, help="how many")
    args = parser.parse_args()

    net = Classifier.load_from_checkpoint(args.checkpoint, map_location="cpu", weights_only=True).net.eval()
    data = ImageData("coins")
    data.prepare_data()
    probe = data.probe(args.images)
    with record(net, gradients=True) as recording:
        logits = net(data.normalize(probe.images)).detach()
    taken = snapshot(recording, views_of(recording, logits))
    pictures = [overlay(taken, probe, i, data.class_names, dpi=180) for i in range(args.images)]
    rows = [np.concatenate(pictures[i : i + 1], axis=1) for i in range(len(pictures))]
    Image.fromarray(np.concatenate(rows)).save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
