#!/usr/bin/env python
"""Put what fine-tuning changed on one picture, for the documentation: from the last step that a run logged.

.venv/bin/python scripts/draw_finetune.py runs/finetune/RUN docs/images/finetune_changed.png
"""

import argparse
import io

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vit_attn.attention_maps.overlay import stack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("picture")
    parser.add_argument("--image", type=int, default=0, help="number of the validation image")
    args = parser.parse_args()

    events = EventAccumulator(args.run, size_guidance={"images": 0}).Reload()
    tags = (f"attention_source_and_tuned/image_{args.image}", "attention_divergence/heads")
    last = [Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string)).convert("RGB") for tag in tags]
    Image.fromarray(stack([np.asarray(picture) for picture in last])).save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
