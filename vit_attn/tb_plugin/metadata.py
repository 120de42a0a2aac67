"""Names shared by writer, server and page."""

import json

from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_BLOB_SEQUENCE, SummaryMetadata  # pyrefly: ignore[missing-module-attribute]

from vit_attn.tb_plugin.blobs import VERSION

PLUGIN_NAME = "vit_attn"
INDEX_TAG = "attention_maps/index"
"""One JSON text a step: everything but pixels and maps. A tag has one plugin; ``vit_attention/…`` are pictures."""


def image_tag(image: int) -> str:
    """Tag of one probe image by its index, from 0: its PNG, a blob a layer, and its relevance where it was logged."""
    return f"attention_maps/image_{image}"


def queries_keys_tag(image: int) -> str:
    """Tag of the queries and keys of one probe image by its index, from 0: a blob a layer."""
    return f"attention_maps/queries_keys_{image}"


def name_of_tag(tag: str) -> str:
    """Name of a time series in messages, where images are numbered from 1.

    >>> name_of_tag("attention_maps/image_0"), name_of_tag("attention_maps/index")
    ('image 1', 'attention_maps/index')
    """
    for name, of_first in (("image", image_tag(0)), ("queries and keys of image", queries_keys_tag(0))):
        if (number := tag.removeprefix(of_first[:-1])).isdecimal():
            return f"{name} {int(number) + 1}"
    return tag


def summary_metadata() -> SummaryMetadata:
    """Metadata of a time series, by which TensorBoard gives it to the plugin; it keeps the first of a tag."""
    content = json.dumps({"version": VERSION}).encode()
    return SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content),
        data_class=DATA_CLASS_BLOB_SEQUENCE,
    )


def version_of(content: bytes) -> int | None:
    """Version of the format in a time series' plugin content; ``None`` if it cannot be read."""
    try:
        version = json.loads(content)["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, int) else None
