"""Further views, links and saved files in a browser, over a made-up network whose queries and keys give its maps."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_attn.cli import main
from vit_attn.tb_plugin.summary import MethodRows, QueriesKeys, TabImages, Tokens, write_attention

STATE = "vit_attn.attention"
GRID, PREFIX, HEADS, CHANNELS, LAYERS, IMAGES = (3, 4), 1, 6, 8, 2, 4
TOKENS = PREFIX + GRID[0] * GRID[1]
SCALE = CHANNELS**-0.5
NAMES = ["cat", "dog", "<b>owl</b>"]
MEASURES = ("entropy", "distance", "sink", "prefix")
MINUS = "\u2212"
TARGETS = [[1, 0, 2], [1, 2, 0], [2, 1, 0], [1, 0, 2]]


def write(folder: Path, step: int):
    """A step, and its queries, keys and maps by layer."""
    rng = np.random.default_rng(step)
    shape = (IMAGES, HEADS, TOKENS, CHANNELS)
    layers = [tuple(2 * rng.standard_normal((2, *shape), np.float32)) for _ in range(LAYERS)]
    maps = []
    for q, k in layers:
        powers = np.exp(SCALE * q @ k.transpose(0, 1, 3, 2))
        maps.append((powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32))
    pixels = np.random.default_rng(1).integers(0, 256, (IMAGES, 24, 32, 3), dtype=np.uint8)
    chances = np.array([[0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.1, 0.2, 0.7], [0.3, 0.6, 0.1]], np.float32)
    rows = rng.random((IMAGES, 3, TOKENS)).astype(np.float32)
    methods = [
        MethodRows("relevance", "relevance", "Chefer 2021", True, True, None, rows),
        MethodRows("legrad", "LeGrad", "arXiv 2404.03214", True, False, rows[:, 0], rows),
    ]
    measures = {name: [[0.1 * head + step / 100 for head in range(HEADS)]] * LAYERS for name in MEASURES}
    write_attention(
        folder,
        step,
        TabImages(pixels, [0, 1, 2, 0], NAMES, targets=TARGETS),
        chances,
        maps,
        Tokens(GRID, PREFIX, np.eye(TOKENS, dtype=np.float32)[:1]),
        rng.random((IMAGES, TOKENS, TOKENS), np.float32),
        methods,
        head_measures=measures,
        queries_keys=QueriesKeys([(q[:2], k[:2]) for q, k in layers], [SCALE, None]),
    )
    return {"layers": layers, "maps": maps, "rows": rows}


@pytest.fixture(scope="module")
def logged(tmp_path_factory, write_step):
    folder = tmp_path_factory.mktemp("views")
    steps = {step: write(folder / "made, up", step) for step in (0, 10, 20)}
    write_step(folder / "earlier", 5)
    return folder, steps


@pytest.fixture(scope="module")
def address(logged, serve, chromium):
    return serve(logged[0], run="earlier")


@pytest.fixture
def tab(open_plugin, address):
    """The tab with a stored state, or within TensorBoard at an address that ends in a link."""

    def open_tab(link=None, width=1400, **state):
        frame = open_plugin(address, {"run": "made, up", "step": 20} | state, (width, 1000), link)
        frame.locator("figure[data-name=Map] .marks").wait_for()
        return frame

    return open_tab


def hover(frame, canvas, patch):
    box = canvas.bounding_box()
    row, col = divmod(patch, GRID[1])
    canvas.hover(position={"x": (col + 0.5) * box["width"] / GRID[1], "y": (row + 0.5) * box["height"] / GRID[0]})


def percent(text: str) -> float:
    return float(text.replace("\u202f", "").rstrip("%")) / 100


def test_a_view_has_its_link_in_the_address_and_opens_in_a_fresh_browser(tab, page, browser, address):
    view = {"step": 10, "image": 1, "method": "raw", "layer": 0, "head": 3, "query": 5, "direction": "to", "hide": True}
    more = {"view": "colours", "colours": [1, 4], "smooth": True, "pin": {"run": "made, up", "step": 0, "image": 1}}
    frame = tab(link="", **view, **more)
    page.wait_for_url(re.compile(r"#vit_attn&p\.vit_attn\.run=made%2C%20up&"))
    page.wait_for_url(re.compile(r"view=colours"))
    link = page.url
    frame.get_by_role("tab", name="Heads in colours").wait_for()
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    fresh = context.new_page()
    fresh.goto(link)
    other = fresh.frame_locator("iframe")
    other.get_by_text("step 10 · 2/3").wait_for()
    kept = json.loads(fresh.evaluate(f"localStorage['{STATE}'] ?? 'null'") or "{}")
    for name, value in (view | more).items():
        assert kept[name] == value, name
    assert other.locator("figure[data-name=A]").is_visible()
    assert other.locator(".notice").is_hidden()
    context.close()


def test_another_link_in_the_same_tab_is_followed_and_other_plugins_keep_theirs(tab, page):
    frame = tab(link="&p.other.x=1&p.vit_attn.run=made%2C%20up&p.vit_attn.step=0")
    frame.get_by_text("step 0 · 1/3").wait_for()
    page.wait_for_url(re.compile(r"p\.other\.x=1.*p\.vit_attn\.image=1"))
    page.evaluate(
        "location.hash = '#vit_attn&p.vit_attn.run=made%2C%20up&p.vit_attn.step=10&p.vit_attn.method=rollout'"
    )
    frame.get_by_text("step 10 · 2/3").wait_for()
    frame.get_by_text("Class-agnostic: rollout of layers 1 to 2").wait_for()


def test_a_link_that_is_stale_or_broken_shows_what_there_is_and_says_so(tab):
    frame = tab(
        link="&p.vit_attn.run=made%2C%20up&p.vit_attn.step=7&p.vit_attn.image=9&p.vit_attn.method=raw&p.vit_attn.head=40&p.vit_attn.layer=x&p.vit_attn.pin=3,1,gone"
    )
    notice = frame.locator(".notice")
    notice.get_by_text("step 7, which was not logged: step 0 is shown").wait_for()
    text = notice.inner_text()
    for part in (
        "image 9, and there are 4",
        "head 40, and there are 6",
        "p.vit_attn.layer=x",
        "comparison with gone, step 3",
    ):
        assert part in text
    notice.get_by_role("button", name="Dismiss").click()
    assert notice.is_hidden()
    assert frame.locator("figure[data-name=Map] .marks").is_visible()


def test_the_link_is_copied(tab, page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    frame = tab(link="", method="raw", layer=0)
    frame.get_by_role("button", name="Copy link").click()
    frame.get_by_text("Link copied").wait_for()
    assert "p.vit_attn.layer=1" in page.evaluate("navigator.clipboard.readText()")


def test_where_nothing_can_be_copied_the_link_is_shown(tab, page):
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    frame = tab(method="raw", layer=0)
    frame.get_by_role("button", name="Copy link").click()
    assert "p.vit_attn.layer=1" in frame.get_by_label("Link", exact=True).input_value()


def test_an_exported_file_has_its_view_in_its_own_address(logged, page, tmp_path):
    assert main(["export-html", str(logged[0] / "made, up"), "--output", str(tmp_path / "a.html")]) == 0
    address = (tmp_path / "a.html").as_uri()
    page.goto(f"{address}#step=10&method=raw&layer=1&head=2&view=channels&query=3")
    page.get_by_text("step 10 · 2/3").wait_for()
    page.get_by_text("softmax over 13 keys").wait_for()
    page.get_by_role("tab", name="Heads over training").click()
    page.wait_for_url(re.compile("#run=.*view=curves"))
    page.locator(".chart .thick").first.wait_for()


def saved(page, frame, name):
    with page.expect_download() as download:
        frame.get_by_role("button", name=name, exact=True).click()
    return download.value.suggested_filename, Path(download.value.path())


def test_the_numbers_are_saved_as_csv_and_npz_with_where_they_are_from(tab, page, logged):
    frame = tab(method="raw", layer=0, head=2, query=4, image=1)
    expected = logged[1][20]["maps"][0][1, 2, 4]
    name, file = saved(page, frame, "CSV")
    assert name == "attention_made_up_step20_image2.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    about = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    wanted = {"run": "made, up", "step": "20", "image": "2", "method": "raw", "layer": "1", "head": "3"}
    assert about | wanted == about
    assert about["query"] == "row 1, column 4"
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    values = np.array([float(row[rows[0].index("value")]) for row in rows[1:]])
    np.testing.assert_allclose(values, expected, atol=0.004 * expected.max())
    name, file = saved(page, frame, "npz")
    with np.load(file) as arrays:
        assert arrays["values"].dtype == np.float32
        np.testing.assert_allclose(arrays["values"], values, rtol=1e-5)
        assert arrays["matrix"].shape == (TOKENS, TOKENS)
        assert json.loads(str(arrays["about"]))["head"] == "3"


def test_the_saved_picture_grows_by_the_sheet_of_both_sides(tab, page):
    frame = tab(method="raw", layer=0, head=2, pin={"run": "made, up", "step": 0, "image": 0})
    _, file = saved(page, frame, "Save PNG")
    with Image.open(file) as picture:
        without = picture.size
    frame.get_by_label("with sheet").check()
    _, file = saved(page, frame, "Save PNG")
    with Image.open(file) as picture:
        assert picture.width == without[0]
        assert picture.height > without[1] + 300
    frame.get_by_label("with sheet").uncheck()
    for view in (
        "Heads in colours",
        "All images",
        "Heads over training",
        "Why this weight",
    ):  # what is open is saved too
        frame.get_by_role("tab", name=view).click()
        frame.get_by_role("tabpanel", name=view).wait_for()
        _, file = saved(page, frame, "Save PNG")
        with Image.open(file) as picture:
            assert picture.height > without[1] + 100, view


def test_heads_in_colours_say_what_each_head_gives(tab, logged):
    frame = tab(method="raw", layer=1, query=4, view="colours")
    choices = frame.get_by_role("group", name="Heads that have a colour").get_by_role("button")
    assert [each.get_attribute("aria-pressed") for each in choices.all()] == ["true"] * 5 + ["false"]
    assert choices.nth(5).is_disabled()
    choices.nth(0).click()
    choices.nth(5).click()
    marks = frame.locator("[role=tabpanel] .marks")
    hover(frame, marks, 7)
    said = frame.locator(".view-readout").inner_text()
    found = {int(head): percent(value) for head, value in re.findall(r"head (\d) ([\d.]+\s%)", said)}
    maps = logged[1][20]["maps"][1][0, :, 4, PREFIX + 7]
    assert sorted(found) == [2, 3, 4, 5, 6]
    for head, value in found.items():
        assert value == pytest.approx(maps[head - 1], abs=0.006)
    ranked = list(found.values())
    assert ranked == sorted(ranked, reverse=True)
    legend = " ".join(choices.all_inner_texts())
    assert sum(int(won) for won in re.findall(r"most in (\d+)", legend)) == GRID[0] * GRID[1]


def test_all_images_stand_on_one_scale_and_can_be_filtered(tab, logged):
    frame = tab(method="raw", layer=0, head=1, query=2, view="images")
    cells = frame.locator(".image-cell")
    frame.locator(".image-cell[aria-label*='largest value']").nth(3).wait_for()
    assert cells.count() == 4
    largest = [
        percent(re.search(r"patch ([\d.]+\s%)", cell.get_attribute("aria-label")).group(1)) for cell in cells.all()
    ]
    rows = logged[1][20]["maps"][0][:, 1, 2, PREFIX:]
    np.testing.assert_allclose(largest, rows.max(axis=1), atol=0.006)
    assert percent(frame.locator(".grid-bar .numbers span").last.inner_text()) == pytest.approx(max(largest), abs=0.001)
    frame.get_by_label(re.compile("wrong only")).check()
    assert [text.split("\n")[0] for text in cells.all_inner_texts()] == ["1 · cat", "4 · cat"]
    assert frame.locator(".thumb:visible").count() == 2
    cells.nth(1).click()
    frame.locator(".thumb[aria-checked=true][aria-label^='image 4']").wait_for()


def test_curves_show_the_measures_and_a_click_goes_to_the_step(tab):
    frame = tab(method="raw", layer=0, head=3, view="curves")
    entropy = frame.get_by_role("slider", name="Entropy over training steps")
    assert entropy.get_attribute("aria-valuetext") == "step 20: 0.500, fraction of ln N"
    assert frame.locator(".chart").count() == 4
    assert frame.locator(".chart").first.locator(".thin").count() == HEADS
    box = entropy.bounding_box()
    entropy.click(position={"x": 0.56 * box["width"], "y": box["height"] / 2})
    frame.get_by_text("step 10 · 2/3").wait_for()
    entropy.press("ArrowLeft")
    frame.get_by_text("step 0 · 1/3").wait_for()
    frame.get_by_role("button", name="Mean of heads").click()
    assert entropy.get_attribute("aria-valuetext") == "step 0: 0.250, fraction of ln N"


def test_a_weight_is_explained_by_its_query_and_key(tab, logged):
    frame = tab(method="raw", layer=0, head=1, query=4, key=6, view="channels", image=1)
    said = frame.locator(".sum")
    said.get_by_text("softmax over 13 keys").wait_for()
    q, k = (vectors[1, 1] for vectors in logged[1][20]["layers"][0])
    text = said.inner_text().replace(MINUS, "-")
    sums = (
        r"sum to ([-\d.]+); . scale [\d.]+ = score ([-\d.]+); softmax over 13 keys: ([\d.]+).%; logged weight ([\d.]+)"
    )
    dot, score, weight, recorded = map(float, re.search(sums, text).groups())
    assert dot == pytest.approx(q[4] @ k[6], abs=0.15)
    assert score == pytest.approx(SCALE * q[4] @ k[6], abs=0.05)
    wanted = logged[1][20]["maps"][0][1, 1, 4, 6]
    assert weight / 100 == pytest.approx(wanted, abs=0.02)
    assert recorded / 100 == pytest.approx(wanted, abs=0.006)
    assert frame.locator(".bars rect").count() == 3 * CHANNELS
    frame.get_by_label("Layer of this view").select_option(index=1)
    said.get_by_text("This layer computes its score in another way").wait_for()
    marks = frame.locator("[role=tabpanel] .marks")
    marks.press("ArrowRight")
    marks.press("Enter")
    said.get_by_text("row 1, column 4 → row 1, column 2").wait_for()


def test_views_say_what_was_not_logged(tab):
    frame = tab(run="earlier", step=5, view="curves")
    frame.get_by_text("measures of heads over steps were not logged in this run").wait_for()
    frame.get_by_role("tab", name="Why this weight").click()
    frame.get_by_text("Queries and keys were not logged at this step").wait_for()
    frame.get_by_role("tab", name="Why this weight").click()
    assert frame.get_by_role("tabpanel").count() == 0


def test_an_image_without_queries_and_keys_names_those_that_have_them(tab):
    frame = tab(image=3, view="channels", method="raw")
    frame.get_by_text("Queries and keys were logged for image 1, 2 only").wait_for()


def test_the_class_of_a_map_is_chosen_from_a_list(tab, logged):
    frame = tab(method="relevance")
    classes = frame.get_by_label("Class that the map is for")
    assert classes.locator("option").all_inner_texts() == ["dog (predicted)", "cat (true label)", "<b>owl</b>"]
    classes.select_option("cat")
    marks = frame.locator("figure[data-name=Map] .marks")
    hover(frame, marks, 5)
    value = float(re.search(r": ([\d.]+)", frame.locator(".readout").inner_text()).group(1))
    assert value == pytest.approx(logged[1][20]["rows"][0, 1, PREFIX + 5], abs=0.006)
    frame.locator("figure[data-name=Matrix] .missing", has_text="logged for the pooled row only").wait_for()
    marks.click()
    frame.get_by_text(
        "For cat, which is not the predicted class, the map of the pooled row was logged only"
    ).first.wait_for()


def test_a_smooth_map_says_that_it_interpolates(tab):
    frame = tab(method="raw", layer=0)
    base = frame.locator("figure[data-name=Map] canvas.base")
    before = base.evaluate("canvas => canvas.toDataURL()")
    frame.get_by_label("Smooth (interpolate)").check()
    frame.locator("figure[data-name=Map] figcaption", has_text="interpolated between patch centres").wait_for()
    frame.get_by_text("The map is interpolated between patch centres").wait_for()
    assert base.evaluate("canvas => canvas.toDataURL()") != before


def test_further_views_open_by_keyboard(tab, page):
    frame = tab()
    frame.locator("figure[data-name=Map] .marks").focus()
    page.keyboard.press("v")
    frame.locator(".hues").wait_for()
    page.keyboard.press("v")
    frame.locator(".image-cells").wait_for()
    page.keyboard.press("t")
    assert frame.get_by_label("Class that the map is for").input_value() == "cat"
    page.keyboard.press("i")
    assert frame.get_by_label("Smooth (interpolate)").is_checked()
    page.keyboard.press("w")
    assert frame.locator(".image-cell").count() == 2


def test_no_view_is_wider_than_the_window(tab, page):
    frame = tab(width=360, method="raw", query=4)
    for view in ("Heads in colours", "All images", "Heads over training", "Why this weight"):
        frame.get_by_role("tab", name=view).click()
        frame.get_by_role("tabpanel", name=view).wait_for()
        for width in (360, 800):
            page.set_viewport_size({"width": width, "height": 900})
            assert frame.locator("html").evaluate("html => html.scrollWidth <= html.clientWidth"), (view, width)
