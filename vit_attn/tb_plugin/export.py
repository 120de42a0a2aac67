"""Export of chosen steps and images of a run, with the page, as one HTML file."""

import base64
import html
import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event  # pyrefly: ignore[missing-module-attribute]

from vit_attn.errors import UserError
from vit_attn.tb_plugin.blobs import READABLE, VERSION, check_maps
from vit_attn.tb_plugin.crc32c import masked_crc32c
from vit_attn.tb_plugin.index import measures_of_run
from vit_attn.tb_plugin.metadata import INDEX_TAG, PLUGIN_NAME, image_tag, name_of_tag, queries_keys_tag
from vit_attn.tb_plugin.page_files import STYLES, bundle, read_static
from vit_attn.tb_plugin.queries_keys import check_queries_keys

HEADER = struct.Struct("<QI")
"""Header of a record: its length, and the masked CRC-32C of the length; that of the record follows it."""
ENTRY = """
const data = JSON.parse(document.getElementById("data").textContent);
const store = new Store("vit_attn.exported", storage());
if (data.view) store.state = followLink(store.state, decodeLink(data.view).state);
const page = new Page(document.body, new EmbeddedSource(data), store);
page.start();
"""


@dataclass(frozen=True)
class StepSize:
    """Bytes that a step takes in an exported page.

    Args:
        images: Bytes of each image: its picture, maps and part of the index.
        queries_keys: Bytes of its queries and keys; 0 where they were not logged.
    """

    images: list[int]
    queries_keys: list[int]

    def total(self, images: Sequence[int], queries_keys: bool) -> int:
        """Sum the bytes of some images."""
        chosen = [image for image in images if image < len(self.images)]
        of_vectors = sum(self.queries_keys[image] for image in chosen) if queries_keys else 0
        return sum(self.images[image] for image in chosen) + of_vectors


def measure_steps(run: Path) -> dict[int, StepSize]:
    """Measure what each step of a run takes in an exported page.

    Raises:
        UserError: If the folder has no steps, or if the log is corrupt.
    """
    if not run.is_dir():
        raise UserError(f"no such folder: {run}")
    sizes: dict[tuple[int, str], int] = {}
    indices: dict[int, Sequence[bytes]] = {}
    for step, tag, blobs in _blobs(run):
        sizes[step, tag] = sum(4 * (len(blob) // 3 + 1) + 3 for blob in blobs)  # base64, quoted
        if tag == INDEX_TAG:
            indices[step] = blobs
    if not indices:
        raise UserError(f"no attention was logged in {run}: name the folder that holds the run's event files")
    found = {}
    for step, blobs in sorted(indices.items()):
        count = len(_index(run, step, blobs)["images"])
        text = len(blobs[0]) // max(1, count) + 100
        images = [text + sizes.get((step, image_tag(image)), 0) for image in range(count)]
        found[step] = StepSize(images, [sizes.get((step, queries_keys_tag(image)), 0) for image in range(count)])
    return found


def page_size() -> int:
    """Return the bytes of a page without data."""
    return len(_page({"run": "", "steps": {}, "measures": measures_of_run({})}).encode())


def export_page(
    run: Path,
    steps: Sequence[int],
    images: Sequence[int] | None = None,
    queries_keys: bool = True,
    name: str = "",
    view: str = "",
    pictures: bool = False,
) -> str:
    """Build the page with the data inside.

    Args:
        run: Folder of event files.
        steps: Steps that it contains.
        images: Indices of the probe images, from 0; all by default.
        queries_keys: Whether it contains queries and keys, where they were logged.
        name: Name of the run; that of the folder by default.
        view: First view, as a link to it names it after ``#``; by default the one that the reader left last.
        pictures: Whether it is of a network as it is, on pictures: its page has no words of a training.

    Raises:
        UserError: If an image was not logged at a step, or if the log is corrupt.
    """
    wanted = {(step, tag): blobs for step, tag, blobs in _blobs(run) if step in steps or tag == INDEX_TAG}
    measures = measures_of_run({step: blobs for (step, tag), blobs in wanted.items() if tag == INDEX_TAG})
    indices = {step: _index(run, step, wanted[step, INDEX_TAG]) for step in steps if (step, INDEX_TAG) in wanted}
    data: dict[str, Any] = {"run": name or run.resolve().name, "view": view, "pictures": pictures}
    data |= {"steps": {}, "measures": measures}
    for step, index in sorted(indices.items()):
        chosen = list(range(len(index["images"]))) if images is None else images
        if missing := [image + 1 for image in chosen if image >= len(index["images"])]:
            raise UserError(f"step {step} has images 1 to {len(index['images'])}, not {missing[0]}")
        index["images"] = [index["images"][image] | {"number": image + 1} for image in chosen]
        data["steps"][step] = {"index": index, "images": {}}
        for position, image in enumerate(chosen):
            of_image = _image(run, step, image, wanted.get((step, image_tag(image)), ()))
            of_image |= _queries_keys(wanted.get((step, queries_keys_tag(image)), ()) if queries_keys else ())
            if "queries_keys" in index["images"][position]:
                index["images"][position]["queries_keys"] = "queries_keys" in of_image
            data["steps"][step]["images"][position] = of_image
    return _page(data)


def _index(run: Path, step: int, blobs: Sequence[bytes]) -> dict[str, Any]:
    """Read the index of a step."""
    try:
        index = json.loads(blobs[0])
        version, images = index["version"], index["images"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{run}, step {step}: corrupt index ({type(error).__name__})") from error
    if version not in READABLE:
        raise UserError(f"{run} is of format version {version}; this version reads {VERSION}")
    if not isinstance(images, list) or not all(isinstance(each, dict) for each in images):
        raise UserError(f"{run}, step {step}: corrupt index (images are no list of objects)")
    return index


def _image(run: Path, step: int, image: int, found: Sequence[bytes]) -> dict[str, Any]:
    if not found:
        raise UserError(f"{run} has no {name_of_tag(image_tag(image))} at step {step}")
    for blob in found[1:]:
        check_maps(blob)
    png, *layers = (base64.b64encode(blob).decode() for blob in found)
    return {"png": png, "layers": layers}


def _queries_keys(found: Sequence[bytes]) -> dict[str, list[str]]:
    """Encode the queries and keys of an image, a text a layer; nothing where none were written."""
    for blob in found:
        check_queries_keys(blob)
    return {"queries_keys": [base64.b64encode(blob).decode() for blob in found]} if found else {}


def _blobs(run: Path) -> Iterator[tuple[int, str, Sequence[bytes]]]:
    """Iterate over step, tag and blobs of the plugin's series; only the first event of a tag names the plugin."""
    ours: set[str] = set()
    for file in sorted(run.glob("*tfevents*")):
        for event in _events(file):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == PLUGIN_NAME:
                    ours.add(value.tag)
                if value.tag in ours:
                    yield event.step, value.tag, value.tensor.string_val


def _events(file: Path) -> Iterator[Event]:
    """Iterate over the events of a file, until its end or the record that is being written.

    Raises:
        UserError: At a corrupt record; its length is trusted only with its checksum, and within the file.
    """
    with file.open("rb") as records:
        size = os.fstat(records.fileno()).st_size
        while len(header := records.read(HEADER.size)) == HEADER.size:
            length, checksum = HEADER.unpack(header)
            at = records.tell()
            if masked_crc32c(header[:8]) != checksum:
                raise UserError(f"{file} is corrupt at byte {at - HEADER.size}: wrong checksum of a record's length")
            if length + 4 > size - at or len(record := records.read(length + 4)) < length + 4:
                return
            event, (checksum,) = record[:length], struct.unpack("<I", record[length:])
            if masked_crc32c(event) != checksum:
                raise UserError(f"{file} is corrupt at byte {at}: wrong checksum of a record of {length} bytes")
            try:
                yield Event.FromString(event)
            except DecodeError as error:
                raise UserError(f"{file} is corrupt at byte {at}: the record is no event") from error


def _page(data: dict[str, Any]) -> str:
    styles = "".join(read_static(name).decode() for name in STYLES)
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no tag can end the script
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Attention: {html.escape(data['run'])}</title>\n"
        f"<style>\n{styles}</style></head><body>\n"
        f'<script type="application/json" id="data">{text}</script>\n'
        f'<script type="module">\n{bundle()}{ENTRY}</script></body></html>\n'
    )
