"""Every route gives what the Python API computes."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.explore.conftest import Page, encoded
from vit_attn.attention_maps import attribution_methods, rollout
from vit_attn.attention_maps.methods.registry import AttributionInput
from vit_attn.attention_maps.summary import query_relevance, record_logits, token_relevance
from vit_attn.data.images.image_file import as_picture, fit_picture, open_image
from vit_attn.explore.session import Place
from vit_attn.tb_plugin.blobs import LENGTH, decode_maps
from vit_attn.tb_plugin.page_files import EXPLORE_STATIC, STATIC
from vit_attn.tb_plugin.queries_keys import decode_queries_keys

PLACE = {"run": "coins", "step": 0, "image": 0}


@pytest.fixture(scope="module")
def expected(coins):
    """Images, recording and logits of the page's picture, by the Python API alone."""
    picture = as_picture(lambda: open_image(io.BytesIO(encoded())), 3)
    pixels = fit_picture(picture, coins.card.img_size, coins.card.crop_pct)
    images = coins.normalize([pixels], torch.device("cpu"))
    return images, *record_logits(coins.net, images)


def split(blobs: bytes) -> list[bytes]:
    """Layers of a reply of /maps."""
    found = []
    while blobs:
        heads, tokens = (int.from_bytes(blobs[a:b], "little") for a, b in ((6, 8), (8, 12)))
        size = 16 + LENGTH.size + 4 * heads * tokens + LENGTH.unpack_from(blobs, 16)[0]
        found.append(blobs[:size])
        blobs = blobs[size:]
    return found


def row(page: Page, **question: object) -> np.ndarray:
    reply = page.get("/row", **PLACE | question)
    assert reply.status_code == 200, reply.text
    return np.frombuffer(reply.data, "<f4")


def test_the_page_is_served_with_the_modules_of_explore(page: Page):
    assert '<script type="module" src="/static/explore.js">' in page.get("/").text
    for name, kind in EXPLORE_STATIC.items():
        reply = page.get(f"/static/{name}")
        assert (reply.status_code, reply.mimetype) == (200, kind)
    assert "explore.js" in EXPLORE_STATIC
    assert "explore.js" not in STATIC


def test_runs_pictures_steps_and_classes_are_listed(page: Page, coins):
    assert page.json("/runs") == {"runs": [{"name": "coins", "problem": ""}]}
    assert page.json("/pictures") == {"pictures": [{"image": 0, "name": "pasted picture", "problem": ""}]}
    assert page.json("/steps", run="coins") == {"steps": [0]}
    assert page.json("/classes", run="coins")["names"] == coins.unique_class_names


def test_the_prediction_is_the_networks(page: Page, expected):
    _, _, logits = expected
    reply = page.json("/prediction", **PLACE)
    np.testing.assert_allclose(reply["logits"], logits[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(reply["probabilities"], logits[0].softmax(-1), rtol=1e-5, atol=1e-6)
    assert reply["note"] == "48x40, the middle 40x40 is seen: 17% is cut off."


def test_the_index_describes_the_picture_and_the_network(page: Page, coins, expected):
    index = page.json("/step", **PLACE)
    _, recording, logits = expected
    (image,) = index["images"]
    assert (index["grid"], index["prefix"], index["heads"]) == ([8, 8], ["CLS"], [4, 4, 4])
    assert (index["version"], index["relevance"], index["cuts"]) == (2, True, 0)
    assert image["top"][0] == [coins.class_name(int(logits.argmax())), round(float(logits[0].softmax(-1).max()), 6)]
    assert (image["label"], image["right"], image["name"]) == (None, None, "pasted picture")
    assert image["crop"] == [0.0, 0.083, 1.0, 0.833]
    np.testing.assert_allclose(index["pooled"], recording.query_rows()[0, 0])
    by_name = {method["name"]: method for method in index["methods"]}
    assert by_name.keys() == {name for name, method in attribution_methods().items() if method.supports(coins.net)}
    assert not by_name["rollout"]["rows"]  # the page computes it
    assert by_name["legrad"]["rows"]
    assert page.json("/measures", run="coins")["measures"] == [index["head_measures"]]


def test_the_picture_is_what_the_network_sees(page: Page, coins):
    with Image.open(io.BytesIO(page.get("/image", **PLACE).data)) as picture:
        assert picture.size == coins.card.img_size[::-1]
        assert (np.asarray(picture) == page.session.pictures.fitted(0, "coins").pixels).all()


def test_maps_are_the_recorded_weights_and_the_relevance(page: Page, expected):
    _, recording, logits = expected
    layers = [decode_maps(blob) for blob in split(page.get("/maps", **PLACE).data)]
    assert len(layers) == len(recording) + 1
    for layer, found in zip(recording, layers, strict=False):
        exact = layer.weights()[0].numpy()
        assert np.abs(found - exact).max() <= 0.004 * exact.max()
    exact = token_relevance(recording, logits)
    assert np.abs(layers[-1] - exact).max() <= 0.004 * exact.max()
    assert page.get("/maps", **PLACE, layers="1-1").data == split(page.get("/maps", **PLACE).data)[1]


def test_queries_and_keys_are_the_recorded_ones(page: Page, expected):
    queries, keys = decode_queries_keys(page.get("/queries_keys", **PLACE, layer=2).data)
    call = expected[1][2].calls[0]
    for found, exact in ((queries, call.q[0].numpy()), (keys, call.k[0].numpy())):
        assert np.abs(found - exact).max() <= 0.005 * np.abs(exact).max()
    assert page.json("/step", **PLACE)["score_scale"][2] == call.scale


@pytest.mark.parametrize("name", attribution_methods())
@pytest.mark.parametrize("query", ["pool", 0, 17])
def test_rows_are_those_of_the_registry(page: Page, coins, expected, name: str, query):
    images, recording, logits = expected
    method, queries = attribution_methods()[name], None if query == "pool" else [query]
    if queries and not method.has_query:
        pytest.skip("the method has no query")
    for target in ("", 3):
        classes = logits.argmax(-1) if target == "" else torch.tensor([target])
        if name == "relevance":
            exact = query_relevance(recording, classes, queries)[0]
        else:
            exact = method.rows(AttributionInput(coins.net, images, recording, classes), queries)[0, 0]
        found = row(page, method=name, query=query, target=target)
        torch.testing.assert_close(torch.from_numpy(found.copy()), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_a_rollout_up_to_the_last_layer_is_that_of_all(page: Page, expected, fusion: str):
    for query in ("pool", 5):
        exact = rollout(expected[1], None if query == "pool" else [query], fusion)[0, 0].numpy()
        up_to_last = row(page, method="rollout", query=query, layer=2, fusion=fusion)
        np.testing.assert_allclose(up_to_last, exact, rtol=1e-5, atol=1e-7)


def test_a_rollout_up_to_the_first_layer_is_half_its_attention_and_half_the_token(page: Page, expected):
    weights = expected[1][0].weights()[0].mean(0)
    for query, start in (("pool", 0), (5, 5)):
        exact = weights[start] / 2
        exact[start] += 0.5
        np.testing.assert_allclose(row(page, method="rollout", query=query, layer=0), exact, rtol=1e-5)


def test_pictures_of_many_kinds_are_taken_and_named(page: Page):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    deep = io.BytesIO()
    Image.fromarray(np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)).save(deep, "PNG")
    bodies = [animation.getvalue(), deep.getvalue(), encoded("L", "JPEG"), encoded("RGBA", "WEBP"), encoded("P", "GIF")]
    for number, body in enumerate(bodies, 1):
        reply = page.post("/picture", body, {"X-Name": "a%2F..%2Fb%0A%E2%82%AC.png"})
        assert json.loads(reply.data) == {"image": number, "name": "a/../b\\n€.png"}
        assert page.get("/maps", **PLACE | {"image": number}).status_code == 200
    first = page.session.pictures.fitted(1, "coins").pixels
    assert first[0, 0].tolist() == [254, 0, 0] or first[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("body", [b"", b"no picture", encoded()[:200], b"%PDF-1.4", encoded("RGB", "JPEG")[:300]])
def test_a_picture_that_cannot_be_read_is_refused_by_its_name(page: Page, body: bytes):
    reply = page.post("/picture", body, {"X-Name": "caf%C3%A9.png"})
    assert reply.status_code == 422
    assert "café.png" in reply.text
    assert len(page.session.pictures) == 1


def test_a_picture_of_too_many_pixels_is_refused(page: Page, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vit_attn.data.images.image_file.MAX_PIXELS", 1000)
    reply = page.post("/picture", encoded())
    assert (reply.status_code, "pixels are more than 1,000" in reply.text) == (422, True)


def test_a_further_picture_is_brief_until_it_is_looked_at(page: Page):
    page.post("/picture", encoded(seed=1), {"X-Name": "second.png"})
    first, second = page.json("/step", **PLACE)["images"]
    assert first["top"]
    assert (second["top"], second["name"], "rows" in second) == ([], "second.png", False)
    page.json("/prediction", **PLACE | {"image": 1})
    assert page.json("/step", **PLACE)["images"][1]["top"][0][1] <= 1
    assert page.session.look(Place("coins", 0, 0)).encoded is not None
