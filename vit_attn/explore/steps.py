"""Index, picture and maps of a step, as the tab's server has them, computed when they are asked for."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vit_attn.attention_maps.methods.measures import measure
from vit_attn.attention_maps.methods.registry import attribution_methods
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.token_layout import crop_to_patches, token_layout
from vit_attn.attention_maps.recording.tokens import prefix_names
from vit_attn.attention_maps.summary import query_relevance, token_relevance
from vit_attn.errors import UserError
from vit_attn.explore.looks import Look
from vit_attn.explore.pixels import encode_png, in_colour, region_of
from vit_attn.explore.session import Place, Session
from vit_attn.reports.tab_inputs import head_measures, queries_keys
from vit_attn.tb_plugin.index import measures_of_run, top_classes
from vit_attn.tb_plugin.inputs import COMPUTED_BY_PAGE, HeadMeasures, MethodRows, TabImages, Tokens
from vit_attn.tb_plugin.queries_keys import encode_queries_keys
from vit_attn.tb_plugin.summary import EncodedStep, encode_attention


def step_index(session: Session, place: Place) -> dict[str, Any]:
    """Build the index of a step: the details of one picture, and names and known predictions of the others.

    Raises:
        UserError: If there is no such place, or if the network cannot be recorded.
    """
    with session.lock:
        index = encoded_look(session, place).index
        (details,) = index["images"]
        others = range(len(session.pictures))
        images = [details if i == place.image else _brief(session, place._replace(image=i), details) for i in others]
        return index | {"images": images, "cuts": len(session.cuts(place))}


def encoded_look(session: Session, place: Place) -> EncodedStep:
    """Return index and maps of a picture, from what is kept or computed now; errors as for :func:`step_index`."""
    with session.lock:
        look = session.look(place)
        if look.encoded is None:
            look = session.look(place, gradients=True)
            look.encoded = _encode(session, place, look)
            session.keep(place, look)
            session.indices(place.run)[place.step] = json.dumps(look.encoded.index).encode()
        return look.encoded


def maps_of(session: Session, place: Place, first: int, last: int | None) -> bytes:
    """Return the layers of a picture from first to last, one after another, and its relevance after the last layer.

    Raises:
        UserError: If there is no such place or layer.
    """
    layers = encoded_look(session, place).images[0][1:]
    if first >= len(layers):
        raise UserError(f"layers must begin within 0-{len(layers) - 1}, got {first}-{last}")
    return b"".join(layers[first : None if last is None else last + 1])


def picture_png(session: Session, place: Place) -> bytes:
    """Encode a picture as PNG as the network sees it: the part that its patches cover; no forward is needed."""
    fitted = session.pictures.fitted(place.image, place.run)
    layout = token_layout(session.live(place.run).network.net, session.images(place.run, place.image))
    return encode_png(np.ascontiguousarray(crop_to_patches(in_colour(fitted.pixels), layout)))


def layer_queries_keys(session: Session, place: Place, layer: int) -> bytes:
    """Encode the queries and keys of a layer.

    Raises:
        UserError: If there is no such place or layer.
    """
    recording = session.look(place).recording
    if layer >= len(recording):
        raise UserError(f"layer must be in 0-{len(recording) - 1}, got {layer}")
    queries, keys = queries_keys(recording, 1).layers[layer]
    return encode_queries_keys(queries[0], keys[0])


def measures(session: Session, run: str) -> dict[str, Any]:
    """Return the measures of the heads at every step, on the picture that was looked at last."""
    known = session.indices(run)
    return measures_of_run({step: [known.get(step, b"{}")] for step in session.steps(run)})


def _brief(session: Session, place: Place, details: dict[str, Any]) -> dict[str, Any]:
    """Part of the index about a picture that is not the one in view."""
    picture, logits = session.pictures[place.image], session.known_logits(place)
    names = session.live(place.run).network.unique_class_names
    image = {
        "label": None,
        "right": None,
        "name": picture.name,
        "top": [] if logits is None else top_classes(logits[0].float().softmax(dim=-1).cpu().numpy(), names),
        "size": details["size"],
        "picture": session.pictures.identity(place.image),
        "ground_truth": None,
        "answer_region": None,
    }
    return image | ({"problem": picture.problem} if picture.problem else {})


def _encode(session: Session, place: Place, look: Look) -> EncodedStep:
    """Encode index and maps of one picture; the network's recording must have its graph."""
    live, recording = session.live(place.run), look.recording
    fitted = session.pictures.fitted(place.image, place.run)
    pixels = np.ascontiguousarray(crop_to_patches(in_colour(fitted.pixels), recording))[None]
    related = token_relevance(recording, look.logits)
    encoded = encode_attention(
        TabImages(pixels, [-1], live.network.unique_class_names, names=[session.pictures[place.image].name]),
        look.logits.float().softmax(dim=-1).cpu().numpy(),
        (layer.weights().cpu().numpy() for layer in recording),
        _tokens(live.network.net, look, related is not None),
        related,
        _methods(live.network.net),
        head_measures=_measure(recording, (pixels.shape[1], pixels.shape[2])),
    )
    index = encoded.index
    for method in index["methods"]:  # any of them can be asked for
        by_page = method["name"] in COMPUTED_BY_PAGE and (method["name"] != "relevance" or related is not None)
        method["rows"] = not by_page
    index["score_scale"] = queries_keys(recording, 1).scales
    identity = session.pictures.identity(place.image)
    index["images"][0] |= {"queries_keys": True, "picture": identity, "crop": region_of(fitted)}
    return encoded


def _tokens(net: Any, look: Look, with_relevance: bool) -> Tokens:
    recording, pooled = look.recording, None
    if recording.pool is not None and with_relevance:
        pooled = query_relevance(recording, look.logits.argmax(dim=-1)).cpu().numpy()
    return Tokens(
        recording.grid_size,
        recording.num_prefix_tokens,
        recording.query_rows()[:, 0].float().cpu().numpy(),
        prefix_names=prefix_names(net, recording.num_prefix_tokens),
        layer_names=[layer.name for layer in recording],
        pooled_relevance=pooled,
    )


def _methods(net: Any) -> Sequence[MethodRows]:
    """Return the methods that support a network, without maps."""
    return [
        MethodRows(method.name, method.label, method.reference, method.class_specific, method.has_query)
        for method in attribution_methods().values()
        if method.supports(net)
    ]


def _measure(recording: Recording, size: tuple[int, int]) -> HeadMeasures | None:
    """Measure every layer and head; None where layers have unequally many heads."""
    rows, cols = recording.grid_size
    patch = recording.patch_size or (size[0] / rows, size[1] / cols)
    with contextlib.suppress(UserError), torch.no_grad():
        return head_measures(measure(recording, patch), recording.num_tokens)
    return None
