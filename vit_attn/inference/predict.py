"""Predictions for image files, as rows of a table."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from vit_attn.inference.images import ImageReader, ReadImage, by_shape, read_ahead, to_batch
from vit_attn.inference.network import TrainedNetwork
from vit_attn.reports.prediction_table import NOT_FINITE, Row, prediction_rows


def predict_files(
    network: TrainedNetwork, reader: ImageReader, files: Sequence[Path], batch_size: int, top_k: int
) -> Iterator[list[Row]]:
    """Predict files; yields the rows of the table for each batch in order, with ``error`` where there is no prediction.

    Args:
        network: The network, on its device.
        reader: Reader of its images.
        files: Image files.
        batch_size: Images in a batch.
        top_k: Number of classes in a row.
    """
    for batch in read_ahead(files, reader, batch_size):
        yield _rows(batch, network, top_k)


def _rows(batch: Sequence[ReadImage], network: TrainedNetwork, top_k: int) -> list[Row]:
    pictures = [picture for _, picture in batch if not isinstance(picture, str)]
    predictions: dict[int, Row] = {}
    for group in by_shape(pictures):
        with torch.inference_mode():
            images = to_batch([pictures[i] for i in group], network, next(network.net.parameters()).device)
            logits = network.net(images)
        found = prediction_rows(logits.float().softmax(dim=-1), top_k, network.unique_class_names.__getitem__)
        predictions |= dict(zip(group, found, strict=True))
    following, rows = iter(range(len(pictures))), []
    for path, picture in batch:
        row = {"error": picture} if isinstance(picture, str) else predictions[next(following)]
        if row.get("error") == NOT_FINITE:
            row["error"] = f"{path}: {NOT_FINITE}"
        rows.append({"image": str(path)} | row)
    return rows
