import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.summary.writer import record_writer
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard import SummaryWriter

from vit_attn.errors import UserError
from vit_attn.tb_plugin.blobs import check_maps, decode_maps
from vit_attn.tb_plugin.event_file import write_blobs
from vit_attn.tb_plugin.metadata import INDEX_TAG, PLUGIN_NAME, image_tag
from vit_attn.tb_plugin.summary import (
    Faithfulness,
    MethodRows,
    TabImages,
    Tokens,
    bytes_of_image,
    write_attention,
)

ROOT = Path(__file__).parents[2]
IMAGES = TabImages(np.zeros((2, 8, 8, 3), np.uint8), [0, 1], ["cat", "dog"])
METHODS = [MethodRows("relevance", "relevance", "Chefer 2021", class_specific=True)]
CHANCES = np.array([[0.9, 0.1], [np.nan, 0.6]], np.float32)
TOKENS = Tokens((2, 2), 1, np.eye(5, dtype=np.float32)[:1])
MAPS = [np.full((2, heads, 5, 5), 0.2, np.float32) for heads in (1, 3)]


def written(folder: Path) -> dict[str, list[bytes]]:
    return {
        value.tag: list(value.tensor.string_val)
        for file in folder.glob("*tfevents*")
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    }


@pytest.mark.parametrize("make", [str, Path, lambda f: SummaryWriter(str(f)), lambda f: EventFileWriter(str(f))])
def test_folders_and_writers_are_written_alike(tmp_path, make):
    writer = make(tmp_path)
    size = write_attention(writer, 3, IMAGES, CHANCES, MAPS, TOKENS)
    if hasattr(writer, "close"):
        writer.close()
    blobs = written(tmp_path)
    assert set(blobs) == {image_tag(0), image_tag(1), INDEX_TAG}
    assert [check_maps(blob) for blob in blobs[image_tag(1)][1:]] == [(1, 5), (3, 5)]
    assert size == sum(len(blob) for each in blobs.values() for blob in each)


def test_checksums_of_a_file_are_computed_by_a_library(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr("vit_attn.tb_plugin.event_file.masked_crc32c", lambda data: sizes.append(len(data)) or 0)
    monkeypatch.setattr(record_writer, "masked_crc32c", record_writer.masked_crc32c)  # put back afterwards
    write_blobs(tmp_path, 0, {"tag": [b"blob" * 1000]})
    assert max(sizes) > 4000


def test_the_index_says_what_is_there(tmp_path):
    relevance = np.ones((2, 5, 5), np.float32)
    judged = {"deletion": (0.25, 0.5, 0.1, 0.4, 0.2), "insertion": np.array([np.inf, 0.5, np.nan, 0.4, 0.2])}
    faithfulness = Faithfulness(8, 5, {"relevance": judged}, [{"relevance": judged}, {}])
    rows = np.array([[0, 1.23456e-5, 2, 3, np.nan], [5, 6, 7, 8, 9]], np.float32)
    methods = [*METHODS, MethodRows("mine", "Mine", "own idea", has_query=False, rows=rows)]
    images = dataclasses.replace(IMAGES, ground_truth=[{"beak": (1,), "bird": (1, 2)}, {"tail": (3,)}])
    images = dataclasses.replace(images, answers=["beak", "tail"])
    write_attention(tmp_path, 0, images, CHANCES, MAPS, TOKENS, relevance, methods, faithfulness, "thinned")
    blobs = written(tmp_path)
    index = json.loads(blobs[INDEX_TAG][0])
    first, second = index["images"]
    assert index | {"images": None} == {
        "version": 2,
        "grid": [2, 2],
        "prefix": ["CLS"],
        "layers": ["1", "2"],
        "heads": [1, 3],
        "pooled": [1, 0, 0, 0, 0],
        "relevance": True,
        "methods": [
            {
                "name": "relevance",
                "label": "relevance",
                "reference": "Chefer 2021",
                "class_specific": True,
                "has_query": True,
                "rows": False,
            },
            {
                "name": "mine",
                "label": "Mine",
                "reference": "own idea",
                "class_specific": False,
                "has_query": False,
                "rows": True,
            },
        ],
        "note": "thinned",
        "images": None,
        "sinks": {"images": 1, "layers": None},
        "judged": {"orders": 8, "images": 5, "methods": first["judged"]},
    }
    assert first["top"] == [["cat", 0.9], ["dog", 0.1]]
    assert first["judged"]["relevance"] == {
        "deletion": [0.25, 0.5, 0.1, 0.4, 0.2],
        "insertion": [None, 0.5, None, 0.4, 0.2],
    }
    assert second["judged"] == {}
    assert [image["rows"] for image in (first, second)] == [
        {"mine": [0, 1.235e-5, 2, 3, None]},
        {"mine": [5, 6, 7, 8, 9]},
    ]
    assert [image["ground_truth"] for image in (first, second)] == [{"beak": [1], "bird": [1, 2]}, {"tail": [3]}]
    assert [image["answer_region"] for image in (first, second)] == ["beak", "tail"]
    assert second["top"][1] == ["cat", None]
    np.testing.assert_allclose(decode_maps(blobs[image_tag(0)][-1])[0], relevance[0])


def test_an_image_of_unknown_class_is_neither_right_nor_wrong_and_has_its_name(tmp_path):
    images = dataclasses.replace(IMAGES, labels=[-1, 1], names=["a.jpg", "b.jpg"])
    write_attention(tmp_path, 0, images, CHANCES, MAPS, TOKENS)
    first, second = json.loads(written(tmp_path)[INDEX_TAG][0])["images"]
    assert [first[key] for key in ("label", "right", "name")] == [None, None, "a.jpg"]
    assert [second[key] for key in ("label", "name")] == ["dog", "b.jpg"]


def test_a_pool_by_attention_has_a_row_for_each_image(tmp_path):
    rows = np.stack([np.eye(5, dtype=np.float32)[i] for i in (1, 2)])
    write_attention(tmp_path, 0, IMAGES, CHANCES, MAPS, Tokens((2, 2), 1, rows))
    assert [image["pooled"] for image in json.loads(written(tmp_path)[INDEX_TAG][0])["images"]] == rows.tolist()


def test_bytes_are_known_before_writing(tmp_path):
    size = write_attention(tmp_path / "a", 0, IMAGES, CHANCES, MAPS, TOKENS)
    assert size <= 2 * bytes_of_image([1, 3], 5, 64) < size + 6000
    rows = np.random.default_rng(0).random((2, 5)) / 1e7
    more = write_attention(tmp_path / "b", 0, IMAGES, CHANCES, MAPS, TOKENS, methods=[MethodRows("a", "A", rows=rows)])
    assert more - size <= 2 * (bytes_of_image([1, 3], 5, 64, rows=1) - bytes_of_image([1, 3], 5, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": [MAPS[0][:, :, :4, :4]]}, r"maps of layer 1 must be \(2, heads, 5, 5\), got \(2, 1, 4, 4\)"),
        ({"images": TabImages(IMAGES.pixels, [0], IMAGES.class_names)}, "got 1 labels for 2 images"),
        (
            {"tokens": Tokens((2, 3), 1, TOKENS.pooled_rows)},
            r"pooled_rows must be \(1 or 2, 7\) for grid_size=\(2, 3\)",
        ),
        ({"faithfulness": Faithfulness(8, 2, {}, [{}])}, "got 1 faithfulness for 2 images"),
        (
            {"faithfulness": Faithfulness(8, 2, {"relevence": {}}, [{}, {}])},
            "got 'relevence', did you mean 'relevance'",
        ),
        (
            {"faithfulness": Faithfulness(8, 2, {"relevance": {"deletion": [0.1]}}, [{}, {}])},
            "with five numbers each",
        ),
        ({"methods": [MethodRows("mine", "Mine", rows=np.ones((1, 5)))]}, "got 1 rows of mine for 2 images"),
        ({"methods": [MethodRows("mine", "Mine", rows=np.ones((2, 4)))]}, r"rows of mine must be \(2, 5\)"),
        (
            {"images": dataclasses.replace(IMAGES, ground_truth=[{"beak": [4]}, {}])},
            r"patches of beak must be in 0\.\.3, got 4",
        ),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, change, message):
    given = {"images": IMAGES, "methods": METHODS, "probabilities": CHANCES, "maps": MAPS, "tokens": TOKENS} | change
    with pytest.raises(UserError, match=message):
        write_attention(tmp_path, 0, **given)
    assert not any(tmp_path.iterdir())


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "format.md").read_text(), re.DOTALL)
    exec(compile(code, "format.md", "exec"), {})
    assert INDEX_TAG in written(tmp_path / "runs" / "mine")
    assert PLUGIN_NAME == "vit_attn"


def written_sinks(folder: Path, maps: np.ndarray, pixels: np.ndarray) -> dict:
    tokens, count = maps.shape[-1], len(pixels)
    images = TabImages(pixels, [0] * count, ["cat"])
    rows = np.eye(tokens, dtype=np.float32)[:1]
    write_attention(folder, 0, images, np.ones((count, 1), np.float32), [maps], Tokens((8, 8), 1, rows))
    return json.loads(written(folder)[INDEX_TAG][0])["sinks"]


def on_tokens(tokens: list[int], share: float = 0.9) -> np.ndarray:
    """A head that gives a share of its attention to one token in each image, and the rest to all alike."""
    maps = np.full((len(tokens), 1, 65, 65), (1 - share) / 65, np.float32)
    for image, token in enumerate(tokens):
        maps[image, 0, :, token] += share
    return maps


def pixels(count: int, same: bool = False) -> np.ndarray:
    return (
        np.random.default_rng(0)
        .integers(0, 256, (1 if same else count, 8, 8, 3), np.uint8)
        .repeat(count if same else 1, axis=0)
    )


def test_a_sink_is_the_same_token_in_nearly_every_image_and_what_moves_with_the_image_is_none(tmp_path):
    still, moving = on_tokens([7] * 10), on_tokens([3, 60, 12, 25, 33, 41, 18, 9, 50, 5])
    found = written_sinks(tmp_path, np.concatenate([still, moving], axis=1), pixels(10))
    assert found == {"images": 10, "layers": [{"heads": [[7], []], "mean": [7]}]}


@pytest.mark.parametrize(("elsewhere", "sinks"), [(0, [7]), (1, [7]), (2, [])])
def test_a_sink_may_be_missing_in_one_image_of_ten(tmp_path, elsewhere, sinks):
    found = written_sinks(tmp_path, on_tokens([50, 12][:elsewhere] + [7] * (10 - elsewhere)), pixels(10))
    assert found["layers"][0]["heads"] == [sinks]


@pytest.mark.parametrize(("share", "sinks"), [(0.13, []), (0.16, [7])])
def test_a_sink_gets_ten_times_the_uniform_share(tmp_path, share, sinks):
    assert written_sinks(tmp_path, on_tokens([7] * 4, share), pixels(4))["layers"][0]["heads"] == [sinks]


@pytest.mark.parametrize(("count", "same", "distinct"), [(1, False, 1), (3, False, 3), (8, True, 1)])
def test_few_images_or_one_and_the_same_say_nothing_of_sinks(tmp_path, count, same, distinct):
    found = written_sinks(tmp_path, on_tokens([7] * count), pixels(count, same))
    assert found == {"images": distinct, "layers": None}


def test_a_head_that_attends_uniformly_or_is_not_finite_has_no_sink(tmp_path):
    maps = np.concatenate([on_tokens([0] * 4, 0.0), on_tokens([7] * 4)], axis=1)
    maps[:, 1, 2] = np.nan
    assert written_sinks(tmp_path, maps, pixels(4))["layers"] == [{"heads": [[], []], "mean": []}]
