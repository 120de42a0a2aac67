"""The page of pictures in a real browser: as a file, and within a notebook's output cell."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vit_attn
from vit_attn.attention_maps.summary import summarize
from vit_attn.cli import main
from vit_attn.data import Coins
from vit_attn.inference.network import open_network

COINS = "vit_attn_coins_patch4_32"
TOKENS = 65


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [Coins("test")[i][0].permute(1, 2, 0).numpy() for i in range(2)]


def values_shown(page, frame) -> tuple[dict[str, str], np.ndarray]:
    """What the view says of itself, and its numbers, as its button saves them."""
    with page.expect_download() as download:
        frame.get_by_role("button", name="npz", exact=True).click()
    with np.load(Path(download.value.path())) as arrays:
        return json.loads(str(arrays["about"])), arrays["values"]


def test_the_file_shows_the_numbers_that_python_computes(pictures, tmp_path, page, chromium):
    files = [tmp_path / f"coins_{i}.png" for i in range(2)]
    for file, pixels in zip(files, pictures, strict=True):
        Image.fromarray(pixels).save(file)
    output = tmp_path / "page.html"
    assert main(["attend", *map(str, files), f"--model={COINS}", f"--output={output}", "--query=2,1"]) == 0
    requests = []
    page.on("request", lambda request: requests.append(request.url.split(":")[0]))
    page.goto(output.as_uri())
    page.locator("figure[data-name=Map] .marks").wait_for()
    assert (
        page.get_by_role("heading", level=1)
        .inner_text()
        .startswith("Which tokens matter to the patch in row 2, column 1")
    )
    network = open_network(COINS)
    for number, pixels in enumerate(pictures):
        images = network.normalize([pixels], torch.device("cpu"))
        page.get_by_role("radiogroup", name="Pictures").get_by_role("radio").nth(number).click()
        for query, button in ((9, None), (None, "pooled row")):
            (summary,) = summarize(network.net, images, query)
            if button:
                page.get_by_role("button", name=button, exact=True).click()
            for method, expected in (("relevance", summary.relevance), ("rollout", summary.rollout)):
                page.get_by_role("combobox", name="Method").select_option(method)
                about, shown = values_shown(page, page)
                assert about["image"] == str(number + 1)
                assert about["predicted"].startswith(network.class_name(summary.predicted))
                np.testing.assert_allclose(shown, expected, atol=0.008 * expected.max())
        page.locator("figure[data-name=Map] .marks").click(position={"x": 5, "y": 70})  # the patch in row 2, column 1
    assert set(requests) <= {"file", "data", "blob"}


def test_the_file_has_no_words_of_a_training(pictures, tmp_path, page):
    file = tmp_path / "page.html"
    vit_attn.show(COINS, pictures).save(file)
    page.goto(file.as_uri())
    page.locator("figure[data-name=Map] .marks").wait_for()
    assert page.get_by_role("combobox", name="Network").input_value() == COINS
    page.get_by_role("button", name="Pin this as A").click()
    page.get_by_role("tab", name="Heads in colours").click()
    page.get_by_role("tab", name="All images").click()
    methods = page.get_by_role("combobox", name="Method")
    said = []
    for method in methods.locator("option").evaluate_all("all => all.map(each => each.value)"):
        methods.select_option(method)
        said.append(page.locator("body").inner_text())
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV", exact=True).click()
        said += Path(download.value.path()).read_text().splitlines()[:3]
    page.get_by_role("button", name="Keys").click()
    said.append(page.get_by_role("dialog", name="Keys").inner_text())
    found = re.findall(r".*\b(?:steps?|runs?|logged|probe|training|wrong only)\b.*", "\n".join(said), re.IGNORECASE)
    assert not found


def test_the_first_view_is_that_of_the_command_whatever_was_looked_at_before(pictures, tmp_path, page):
    first, second = tmp_path / "first.html", tmp_path / "second.html"
    vit_attn.show(COINS, pictures).save(first)
    vit_attn.show(COINS, pictures[0], target="plus").save(second)
    page.goto(first.as_uri())
    page.locator("figure[data-name=Map] .marks").wait_for()
    page.get_by_role("combobox", name="Method").select_option("rollout")
    page.get_by_role("radiogroup", name="Pictures").get_by_role("radio").nth(1).click()
    page.goto(second.as_uri())
    page.locator("figure[data-name=Map] .marks").wait_for()
    assert "the class “plus”, which is not the one predicted" in page.get_by_role("heading", level=1).inner_text()
    page.get_by_role("combobox", name="Method").select_option("rollout")
    page.wait_for_url(re.compile("method=rollout"))  # it is written now and then
    page.reload()  # the address has the view by now, and a reader who reloads goes on with it
    page.locator("figure[data-name=Map] .marks").wait_for()
    assert "(attention rollout)" in page.get_by_role("heading", level=1).inner_text()


@pytest.mark.parametrize(
    ("mark", "theme"), [("data-jp-theme-light=false", "dark"), ("data-jp-theme-light=true", "light"), ("", "dark")]
)
def test_a_cell_shows_the_page_in_the_theme_of_the_notebook(mark: str, theme: str, pictures, tmp_path, page):
    host = tmp_path / "notebook.html"
    shown = vit_attn.show(COINS, pictures[0], class_names=[f'<b>"{i}"</b>' for i in range(10)])
    host.write_text(f"<!doctype html><title>notebook</title><body {mark}>{shown._repr_html_()}", encoding="utf-8")
    page.emulate_media(color_scheme="dark")
    page.goto(host.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("figure[data-name=Map] .marks").click(position={"x": 40, "y": 40})
    assert '“<b>"3"</b>”' in frame.get_by_role("heading", level=1).inner_text()
    assert frame.locator("html").get_attribute("data-theme") == theme
    _, values = values_shown(page, frame)
    assert values.shape == (TOKENS,)
    assert page.title() == "notebook"
    assert not frame.get_by_role("button", name="Copy link").is_visible()  # a cell has no address
    assert frame.get_by_role("button", name="Save PNG").is_visible()
    assert page.locator("body").evaluate("body => body.children.length") == 1
