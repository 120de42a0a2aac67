import base64
import json
import re
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from vit_attn.cli import main
from vit_attn.commands import export_html
from vit_attn.tb_plugin import crc32c, index, metadata, summary
from vit_attn.tb_plugin.blobs import HEADER, MAGIC
from vit_attn.tb_plugin.event_file import write_blobs
from vit_attn.tb_plugin.export import StepSize, export_page, measure_steps, page_size
from vit_attn.tb_plugin.export_plan import plan_export
from vit_attn.tb_plugin.inputs import QueriesKeys
from vit_attn.tb_plugin.metadata import INDEX_TAG, image_tag
from vit_attn.tb_plugin.page_files import STATIC, STYLES, bundle, read_static
from vit_attn.tb_plugin.queries_keys import encode_queries_keys


@pytest.fixture
def run(tmp_path, write_step):
    for step in (0, 10, 20, 30):
        write_step(tmp_path / "run", step)
    return tmp_path / "run"


def test_the_file_shows_the_chosen_steps_and_images_without_a_server(run, page, capsys):
    assert main(["export-html", str(run), "--steps", "first,20", "--images", "2"]) == 0
    assert "attention.html: steps 0, 20" in capsys.readouterr().out
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((run / "attention.html").as_uri())
    page.get_by_text("step 20 · 2/2").wait_for()
    assert page.get_by_role("radiogroup", name="Probe images").get_by_role("radio").count() == 1
    assert page.get_by_text("<b>owl</b>").count() > 0
    (image,) = page.get_by_role("radiogroup", name="Probe images").get_by_role("radio").all()
    assert image.get_attribute("aria-label").startswith("image 2, ")  # its number in the run
    page.locator("figure[data-name=Map] .marks").click(position={"x": 40, "y": 40})
    page.get_by_label("Training step").fill("0")
    page.get_by_text("step 0 · 1/2").wait_for()
    assert {url.split(":")[0] for url in requests} <= {"file", "data", "blob"}


def first_version(maps: np.ndarray, max_bits: float = 8) -> bytes:
    """A layer as version 1 wrote it."""
    peaks = maps.max(axis=-1, keepdims=True)
    body = peaks.astype("<f4").tobytes() + np.rint(255 * np.sqrt(maps / peaks)).astype(np.uint8).tobytes()
    return HEADER.pack(MAGIC, 1, *maps.shape[:2], zlib.crc32(body)) + body


def test_a_log_of_version_1_is_exported_and_shown(tmp_path, write_step, page, monkeypatch):
    monkeypatch.setattr(summary, "encode_maps", first_version)
    for module in (index, metadata):
        monkeypatch.setattr(module, "VERSION", 1)
    write_step(tmp_path / "old", 7)
    monkeypatch.undo()
    assert main(["export-html", str(tmp_path / "old")]) == 0
    page.goto((tmp_path / "old" / "attention.html").as_uri())
    page.get_by_text("step 7 · 1/1").wait_for()
    page.locator("figure[data-name=Map] .marks").click(position={"x": 40, "y": 40})


def test_an_exported_file_has_the_measures_of_every_step_and_queries_and_keys_where_they_fit(tmp_path, write_step):
    rng = np.random.default_rng(0)
    layers = [tuple(rng.standard_normal((2, 1, heads, 26, 4)).astype(np.float32)) for heads in (2, 3)]
    measures = {name: [[1, 2], [3, 4, 5]] for name in ("entropy", "distance", "sink", "prefix")}
    for step in (0, 1):
        write_step(tmp_path, step, queries_keys=QueriesKeys(layers, [0.5, 0.5]), head_measures=measures)
    for with_vectors in (True, False):
        text = export_page(tmp_path, [1], None, with_vectors)
        data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
        assert data["measures"]["steps"] == [0, 1]
        assert data["measures"]["measures"] == [measures] * 2
        first, second = (data["steps"]["1"]["images"][image] for image in "01")
        blobs = [encode_queries_keys(q[0], k[0]) for q, k in layers] if with_vectors else []
        assert [base64.b64decode(each) for each in first.get("queries_keys", [])] == blobs
        assert "queries_keys" not in second
        assert [each["queries_keys"] for each in data["steps"]["1"]["index"]["images"]] == [with_vectors, False]


def test_the_page_loads_the_style_sheets_of_an_exported_file_in_their_order():
    (listed,) = re.findall(r"const STYLES = \[(.*)\];", read_static("index.js").decode())
    assert tuple(f"css/{name}.css" for name in re.findall(r'"(\w+)"', listed)) == STYLES
    assert {name for name, kind in STATIC.items() if kind == "text/css"} == set(STYLES)


def test_the_modules_fit_into_one():
    source = bundle()
    for name in STATIC:
        if name.endswith(".js") and name != "guide_page.js":  # which the guide's own page needs alone
            for definition in re.findall(
                r"^export ((?:async )?(?:function|class|const) \w+)", read_static(name).decode(), re.M
            ):
                assert f"\n{definition}" in source, f"{name}: {definition}"
    assert not re.search(r"^(import|export) ", source, re.MULTILINE)
    if node := shutil.which("node"):
        done = subprocess.run(
            [node, "--check", "--input-type=module", "-"], input=source, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_no_label_can_end_the_script(run):
    assert main(["export-html", str(run)]) == 0
    assert "<b>owl" not in (run / "attention.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "7"], "step 7 was not logged; logged are 0, 10, 20, 30"),
        (["--steps", "frist"], "expected a number from 0, got 'frist'"),
        (["--images", "9"], "step 0 has images 1 to 2, not 9"),
        (["--images", "0"], "expected a number from 1, got '0'"),
        (["--pictures", "1"], "unknown option"),
        (["--max-megabytes", "0"], "max-megabytes must be above 0, got 0.0"),
        (["--max-megabytes", "many"], "argument --max-megabytes: invalid float value: 'many'"),
        (["--max-megabytes", "nan"], "max-megabytes must be above 0, got nan"),
        (["--max-megabytes", "0.01"], "image 1 of step 30 alone would take 0."),
        (["--steps", "all", "--max-megabytes", "0.01"], "these steps would take 0."),
    ],
)
def test_mistakes_cost_one_line(run, capsys, options, message):
    assert main(["export-html", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_size_is_said_before_the_file_is_written_and_is_that_of_the_file(run, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(
        export_html, "export_page", lambda *args: said.append(capsys.readouterr().out) or export_page(*args)
    )
    for options in ([], ["--steps", "all"], ["--images", "1"]):
        assert main(["export-html", str(run), *options]) == 0
        size = (run / "attention.html").stat().st_size / 1e6
        assert float(re.search(r"([\d.]+) MB", said[-1])[1]) == pytest.approx(size, rel=0.01, abs=0.051)
    assert "steps 0, 10, 20, 30, all images" in said[1]
    assert "Left out" not in said[1]
    assert "Left out: 1 of 4 steps, 1 of 2 images. For all, " in said[2]


def test_what_does_not_fit_is_left_out_and_named(run, capsys):
    size = page_size() + max(each.total([0, 1], True) for each in measure_steps(run).values())
    assert main(["export-html", str(run), "--max-megabytes", str(1.02 * size / 1e6)]) == 0
    out = capsys.readouterr().out
    assert "attention.html: steps 30, all images, " in out
    assert "Left out: 3 of 4 steps. For all, " in out
    assert "--steps=all --images=all --max-megabytes=" in out
    assert (run / "attention.html").stat().st_size <= 1.02 * size


SIZES = {step: StepSize([100] * 8, [50] + [0] * 7) for step in (0, 1, 2, 3)}


@pytest.mark.parametrize(
    ("steps", "images", "limit", "expected"),
    [
        (None, None, 2650, ([0, 2, 3], None, True, 2650)),
        (None, None, 2649, ([0, 2, 3], None, False, 2500)),
        (None, None, 1300, ([0, 2, 3], [0, 1, 2, 3], False, 1300)),
        (None, None, 1299, ([0, 3], [0, 1, 2, 3, 4], False, 1100)),
        (None, None, 899, ([3], [0, 1, 2, 3, 4, 5, 6], False, 800)),
        (None, None, 499, ([0, 2, 3], [0], False, 400)),
        (None, None, 299, ([3], [0], False, 200)),
        (None, [5], 899, ([0, 2, 3], [5], True, 400)),
        ([1, 2], None, 899, ([1, 2], [0, 1, 2], False, 700)),
        ([1, 2], [0, 1], 599, ([1, 2], [0, 1], False, 500)),
    ],
)
def test_queries_and_keys_are_left_out_first_then_images_then_steps_and_what_was_named_stays(
    steps, images, limit, expected
):
    plan = plan_export(SIZES, steps, images, page=100, limit=limit)
    assert (plan.steps, plan.images, plan.queries_keys, plan.size) == expected


def test_steps_may_have_fewer_images_than_others():
    plan = plan_export({0: StepSize([100], [0]), 1: StepSize([100] * 3, [0] * 3)}, None, None, page=0, limit=1000)
    assert (plan.steps, plan.images, plan.size) == ([0, 1], None, 400)


def test_a_folder_without_attention_is_refused(tmp_path, capsys):
    assert main(["export-html", str(tmp_path)]) == 2
    assert "no attention was logged in" in capsys.readouterr().err
    assert main(["export-html", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_corrupt_run_and_a_file_that_is_being_written(run, damage, capsys):
    file = max(run.iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    assert main(["export-html", str(run), "--steps", "last"]) == 0
    assert "steps 20" in capsys.readouterr().out
    damage(run)
    assert main(["export-html", str(run), "--steps", "0"]) == 2
    assert "wrong checksum" in capsys.readouterr().err


def header(length: int, checksum: int | None = None) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc32c(packed) if checksum is None else checksum)


def test_a_length_is_believed_only_with_its_checksum_and_within_the_file(run, capsys):
    file = max(run.iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole + header(2**62, 0) + b"x" * 50)
    assert main(["export-html", str(run)]) == 2
    error = capsys.readouterr().err
    assert f"{file} is corrupt at byte {len(whole)}: wrong checksum of a record's length" in error
    assert error.count("\n") == 1
    file.write_bytes(whole + header(2**62) + b"x" * 50)  # as a record that is being written, but for its size
    assert main(["export-html", str(run)]) == 0
    assert "steps 0, 20, 30" in capsys.readouterr().out


def test_a_record_with_a_wrong_checksum_and_one_that_is_no_event_are_one_line(run, capsys):
    file = max(run.iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    assert main(["export-html", str(run)]) == 2
    assert re.search(r"corrupt at byte \d+: wrong checksum of a record of \d+ bytes\n$", capsys.readouterr().err)
    file.write_bytes(whole + header(5) + b"\xff" * 5 + struct.pack("<I", masked_crc32c(b"\xff" * 5)))
    assert main(["export-html", str(run)]) == 2
    assert f"corrupt at byte {len(whole) + 12}: the record is no event" in capsys.readouterr().err


INDEX = {"version": 1, "images": [{}]}


@pytest.mark.parametrize(
    ("index", "image", "message"),
    [
        ([], [b"png"], "corrupt index (IndexError)"),
        ([b"{"], [b"png"], "corrupt index (JSONDecodeError)"),
        ([b"[" * 100_000], [b"png"], "corrupt index (RecursionError)"),
        ([b"3"], [b"png"], "corrupt index (TypeError)"),
        ([json.dumps({"version": 1}).encode()], [b"png"], "corrupt index (KeyError)"),
        ([json.dumps(INDEX | {"images": [3]}).encode()], [b"png"], "corrupt index (images are no list of objects"),
        ([json.dumps(INDEX | {"images": 3}).encode()], [b"png"], "corrupt index (images are no list of objects"),
        ([json.dumps(INDEX | {"version": 10**400}).encode()], [b"png"], "is of format version 1000"),
        ([json.dumps(INDEX).encode()], [], "has no image 1 at step 1"),
        ([json.dumps(INDEX).encode()], [b"png", b"VATN"], "not a layer of maps"),
    ],
)
def test_hostile_records_are_one_line(index, image, message, tmp_path, capsys):
    write_blobs(str(tmp_path), 1, {image_tag(0): image, INDEX_TAG: index})
    assert main(["export-html", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_number_of_thousands_of_digits_is_no_number(run, capsys):
    for option in ("--steps", "--images"):
        assert main(["export-html", str(run), option, "9" * 5000]) == 2
        assert "expected a number from" in capsys.readouterr().err


@pytest.mark.parametrize("length", [0, 1, 8, 100_001])
def test_checksums_are_tensorboards(length):
    data = np.random.default_rng(length).bytes(length)
    assert crc32c.masked_crc32c(data) == masked_crc32c(data)
