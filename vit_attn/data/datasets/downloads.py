"""Address of a download that failed, and where torchvision looks for a file that was put there by hand."""

import traceback
from pathlib import Path

__all__ = ["by_hand"]


def by_hand(error: BaseException) -> str:
    """Describe how to do a failed download of torchvision's by hand: ``; download ADDRESS to FILE``, or nothing.

    Torchvision's errors do not name the address, so it is read from the frames of the traceback. A file that is there,
    with the right checksum, is unpacked and not downloaded again.

    Args:
        error: What torchvision raised.
    """
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        found = frame.f_locals
        if isinstance(address := found.get("url"), str):
            folder = getattr(found.get("self"), "raw_folder", None) or found.get("root") or found.get("download_root")
            if folder:
                file = Path(folder, found.get("filename") or address.rpartition("/")[2])
                return f"; download {address} to {file} and start again"
    return ""
