"""What a command on files of the user's own says before it begins."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vit_attn.errors import one_line

if TYPE_CHECKING:
    from vit_attn.inference.network import Network


def say_what_is_read(files: Sequence[Path], network: "Network", name: str) -> None:
    """Write one line: how many images, and the classes of the network.

    Args:
        files: The images.
        network: That names them.
        name: What it was called.
    """
    from vit_attn.data.summary import (
        describe_classes,
    )  # torch takes seconds to import: only when there is something to do

    names = [network.name_of(index) for index in range(network.num_classes)]
    sys.stdout.write(
        one_line(f"{name}: {describe_classes(names)}; {len(files):,} image{'' if len(files) == 1 else 's'}") + "\n"
    )
