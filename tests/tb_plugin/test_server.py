import json
import subprocess
import sys
import time
from urllib.parse import urlencode

import numpy as np
import pytest

from vit_attn.tb_plugin import metadata
from vit_attn.tb_plugin.blobs import decode_maps, encode_maps
from vit_attn.tb_plugin.event_file import write_blobs
from vit_attn.tb_plugin.inputs import QueriesKeys
from vit_attn.tb_plugin.metadata import image_tag
from vit_attn.tb_plugin.page_files import STATIC
from vit_attn.tb_plugin.plugin import AttentionLoader
from vit_attn.tb_plugin.queries_keys import encode_queries_keys

STEPS = [0, *range(7, 7 * 24, 7)]
DIGITS = "9" * 5000
VECTORS = [np.random.default_rng(heads).standard_normal((2, 1, heads, 26, 8)).astype(np.float32) for heads in (2, 3)]
MEASURES = {name: [[0.5, float("nan")], [1, 2, 3]] for name in ("entropy", "distance", "sink", "prefix")}
DETAILS = {"queries_keys": QueriesKeys([(q, k) for q, k in VECTORS], [0.5, None]), "head_measures": MEASURES}


@pytest.fixture(scope="module")
def logdir(tmp_path_factory, write_step, damage):
    folder = tmp_path_factory.mktemp("runs")
    for step in STEPS:
        write_step(folder / "good" / "a", step, **(DETAILS if step else {}))
    write_step(folder / "damaged", 3)
    damage(folder / "damaged")
    for step, blobs in enumerate(([], [b"[" * 100_000, b"odd"], [b'{"version": [1]}']), start=1):
        write_blobs(str(folder / "hostile"), step, {image_tag(0): blobs, metadata.INDEX_TAG: blobs})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "VERSION", 3)
        write_step(folder / "newer", 0)
    return folder


@pytest.fixture(scope="module", params=["fast", "python"])
def routes(request, logdir, serve, read):
    if request.param == "fast":
        pytest.importorskip("tensorboard_data_server", reason="this platform has no fast reader")
    address = serve(logdir, *([] if request.param == "fast" else ["--load_fast=false"]), run="newer")

    def ask(route, **parameters):
        return read(f"{address}/data/plugin/vit_attn/{route}?{urlencode(parameters)}")

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(json.loads(ask("steps", run="good/a")[1])["steps"]) < len(STEPS):
        time.sleep(0.2)
    return ask


def test_every_step_stays_step_0_included(routes):
    assert json.loads(routes("steps", run="good/a")[1])["steps"] == STEPS


def test_runs_are_listed_and_one_of_another_version_says_so(routes):
    runs = {run["name"]: run["problem"] for run in json.loads(routes("runs")[1])["runs"]}
    assert runs["good/a"] == runs["damaged"] == ""
    assert runs["newer"] == "format version 3; this version of vit_attn reads 2"


def test_maps_are_what_was_written(routes, write_step, tmp_path):
    status, body = routes("maps", run="good/a", step=14, image=1)
    written = write_step(tmp_path, 14)
    expected = [encode_maps(layer[1]) for layer in written]
    assert status == 200
    assert body == b"".join(expected)
    np.testing.assert_allclose(decode_maps(expected[0]), written[0][1], atol=0.004)
    assert routes("maps", run="good/a", step=14, image=1, layers="1-1")[1] == expected[1]


def test_measures_are_those_of_every_step_and_null_where_there_are_none(routes):
    found = json.loads(routes("measures", run="good/a")[1])
    assert (found["steps"], found["layers"], found["heads"]) == (STEPS, ["1", "2"], [2, 3])
    assert found["measures"][0] is None
    assert found["measures"][1:] == [{name: [[0.5, None], [1, 2, 3]] for name in MEASURES}] * (len(STEPS) - 1)
    assert set(json.loads(routes("measures", run="hostile")[1])["measures"]) == {None}


def test_queries_and_keys_are_of_the_images_that_have_them(routes):
    index = json.loads(routes("step", run="good/a", step=7)[1])
    assert index["score_scale"] == [0.5, None]
    assert [image["queries_keys"] for image in index["images"]] == [True, False]
    status, body = routes("queries_keys", run="good/a", step=7, image=0, layer=1)
    assert status == 200
    assert body == encode_queries_keys(VECTORS[1][0, 0], VECTORS[1][1, 0])


def test_a_step_says_labels_predictions_and_tokens(routes):
    step = json.loads(routes("step", run="good/a", step=7)[1])
    assert (step["grid"], step["prefix"], step["heads"]) == ([4, 6], ["CLS", "R1"], [2, 3])
    image = step["images"][1]
    assert image["label"] == "dog"
    assert image["top"][0] == ["<b>owl</b>", 0.7]
    assert not image["right"]


def test_pictures_are_png(routes):
    status, body = routes("image", run="good/a", step=0, image=0)
    assert status == 200
    assert body.startswith(b"\x89PNG")


def test_a_corrupt_layer_is_named_and_the_others_are_served(routes):
    status, body = routes("maps", run="damaged", step=3, image=1)
    assert status == 422
    assert body.decode().startswith("layer 2: corrupt maps: wrong checksum")
    assert routes("maps", run="damaged", step=3, image=1, layers="0-0")[0] == 200
    assert routes("maps", run="damaged", step=3, image=0)[0] == 200


@pytest.mark.parametrize(
    ("route", "parameters", "status", "message"),
    [
        ("steps", {"run": "gone"}, 404, "run 'gone' has no attention_maps/index"),
        ("step", {"run": "good/a", "step": 8}, 404, "has no attention_maps/index at step 8"),
        ("step", {"run": "newer", "step": 0}, 200, ""),
        ("maps", {"run": "good/a", "step": 7, "image": 99}, 404, "has no image 100"),
        ("maps", {"run": "good/a", "step": "x", "image": 0}, 422, "step must be a number, got 'x'"),
        ("maps", {"run": "good/a", "step": 0, "image": 0, "layers": "a"}, 422, "layers must be first-last, got 'a'"),
        ("maps", {"run": "good/a", "step": 0, "image": 0, "layers": "1-0"}, 422, "layers must be first-last"),
        ("maps", {"run": "good/a", "step": 0, "image": 0, "layers": "2-99999999999"}, 422, "must begin within 0-1"),
        ("maps", {"run": "good/a", "step": 0, "image": 0, "layers": f"0-{DIGITS}"}, 422, "layers must be first-last"),
        ("maps", {"run": "good/a", "step": DIGITS, "image": 0}, 422, "step must be a number, got '99"),
        ("maps", {"run": "good/a", "step": 0, "image": DIGITS}, 422, "image must be a number, got '99"),
        ("maps", {"run": "good/a", "step": 0, "image": "\u00b2"}, 422, "image must be a number"),
        ("maps", {"run": "good/a", "step": 0, "image": "\u0663"}, 422, "image must be a number"),
        ("maps", {"run": "good/a", "step": "-1", "image": 0}, 422, "step must be a number, got '-1'"),
        ("step", {"run": "good/a", "step": 10**18 - 1}, 404, "has no attention_maps/index at step"),
        ("steps", {"run": b"\xff\x00\n\x1b"}, 404, "has no attention_maps/index"),
        ("steps", {"run": "x" * 20_000}, 404, "has no attention_maps/index"),
        ("step", {"run": "hostile", "step": 2}, 422, "corrupt index"),
        ("step", {"run": "hostile", "step": 3}, 422, "index of format version [1]"),
        ("maps", {"run": "hostile", "step": 2, "image": 0}, 422, "layer 1: not a layer of maps"),
        ("maps", {}, 422, "missing parameter"),
        ("measures", {"run": "gone"}, 404, "run 'gone' has no attention_maps/index"),
        ("measures", {}, 422, "missing parameter run"),
        ("queries_keys", {"run": "good/a", "step": 7, "image": 1, "layer": 0}, 404, "no queries and keys of image 2"),
        ("queries_keys", {"run": "good/a", "step": 0, "image": 0, "layer": 0}, 404, "no queries and keys of image 1"),
        ("queries_keys", {"run": "good/a", "step": 7, "image": 0, "layer": 2}, 422, "must begin within 0-1, got 2-2"),
        ("queries_keys", {"run": "good/a", "step": 7, "image": 0}, 422, "missing parameter layer"),
        ("static/../plugin.py", {}, 404, ""),
    ],
)
def test_bad_requests_are_one_line(routes, route, parameters, status, message):
    found, body = routes(route, **parameters)
    assert found == status
    assert message in body.decode()
    assert status == 200 or (len(body) < 1000 and b"\n" not in body)


@pytest.mark.parametrize("route", ["step", "image"])
def test_a_step_at_which_nothing_was_written_is_no_fault_of_the_server(routes, route):
    found, body = routes(route, run="hostile", step=1, image=0)  # the fast reader leaves it out
    assert (found, body[:8]) in [(422, b"corrupt:"), (404, b"Not foun"), (404, b"run 'hos")]


def test_every_file_of_the_page_is_served(routes):
    assert {name: routes(f"static/{name}")[0] for name in STATIC} == dict.fromkeys(STATIC, 200)


def test_the_server_imports_no_torch():
    code = "import sys, vit_attn.tb_plugin.plugin as p; p.read_static('index.js'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "timm"} & set(loaded)


def test_a_users_own_limit_of_samples_is_kept():
    class Flags:
        samples_per_plugin = {"vit_attn": 5}  # noqa: RUF012

    AttentionLoader().fix_flags(Flags)
    assert Flags.samples_per_plugin == {"vit_attn": 5}
