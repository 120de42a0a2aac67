"""Writing blob sequences into event files."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # pyrefly: ignore[missing-module-attribute]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]
from tensorboard.summary.writer import record_writer
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from vit_attn.tb_plugin.crc32c import masked_crc32c
from vit_attn.tb_plugin.metadata import summary_metadata


def use_fast_checksums() -> None:
    """Let TensorBoard's writers of this process compute the same checksums with google-crc32c.

    Its own are computed byte by byte, in a thread that keeps the training's from running: 0.2 s for the pictures and
    maps of 16 small images.
    """
    record_writer.masked_crc32c = masked_crc32c


def write_blobs(writer: Any, step: int, series: Mapping[str, list[bytes]]) -> None:
    """Write blobs by tag, in this order.

    Args:
        writer: A folder, or a writer of event files: torch's ``SummaryWriter`` or TensorBoard's ``EventFileWriter``.
        step: Training step.
        series: Blobs of each tag.
    """
    use_fast_checksums()
    events = []
    for tag, blobs in series.items():
        value = Summary.Value(tag=tag, tensor=make_tensor_proto(blobs), metadata=summary_metadata())
        events.append(Event(summary=Summary(value=[value]), step=step, wall_time=time.time()))
    if isinstance(writer, str | Path):
        _write_file(Path(writer), events)
        return
    target = writer._get_file_writer() if hasattr(writer, "_get_file_writer") else writer
    for event in events:
        target.add_event(event, *([step] if target is not writer else []))
    target.flush()


def _write_file(folder: Path, events: Sequence[Event]) -> None:
    """Write a file of its own, named so that files of one second stay in their order: readers go by name."""
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time_ns()
    with (folder / f"events.out.tfevents.{now // 10**9:010d}.{now % 10**9:09d}.vit_attn").open("wb") as opened:
        writer = RecordWriter(opened)
        for event in (Event(wall_time=now / 1e9, file_version="brain.Event:2"), *events):
            writer.write(event.SerializeToString())
