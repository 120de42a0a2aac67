"""Every control of the page in a real browser, over event files of a real training and of a made-up network."""

import re
from pathlib import Path

import numpy as np
import pytest

from vit_attn.cli import main
from vit_attn.tb_plugin.summary import Faithfulness, MethodRows

ROOT = Path(__file__).parents[2]
GRID, PREFIX = (4, 6), 2
TOKENS = PREFIX + GRID[0] * GRID[1]
STATE = "vit_attn.attention"
BETTER = {"deletion": (0.2, 0.4, 0.05, 0.45, 0.04), "insertion": (0.7, 0.4, 0.05, 0.41, 0.06)}
OWN = MethodRows("mine", "Mine", "Doe 2020", True, False, np.random.default_rng(7).random((2, TOKENS)) / 100)
SAME = {"deletion": (0.145, 0.154, 0.02, 0.15, 0.02), "insertion": (0.41, 0.4, 0.05, 0.5, 0.06)}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory, write_step):
    """A folder of runs, and the maps of run ``made/up`` by step."""
    folder = tmp_path_factory.mktemp("page")
    more = {
        "ground_truth": [{"whole": [3, 4, 9], "beak": [3], "tail": [20]}] * 2,
        "answers": ["beak"] * 2,
        "relevance": np.random.default_rng(5).random((2, TOKENS, TOKENS), dtype=np.float32),
        "methods": [*(MethodRows(label, label) for label in ("relevance", "last layer")), OWN],
        "faithfulness": Faithfulness(8, 4, {"relevance": BETTER, "last layer": SAME}, [{"relevance": SAME}, {}]),
        "note": "To stay within 1 MB: 2 of 4 images.",
    }
    maps = {step: write_step(folder / "made" / "up", step, GRID, PREFIX, **more) for step in (0, 10, 20)}
    write_step(folder / "no_relevance", 5, GRID, PREFIX, images=5)
    write_step(folder / "one_head", 5, (3, 3), 0, (1,), images=1)
    write_step(folder / "many_heads", 5, (2, 3), 5, (24, 24), images=1)
    write_step(folder / "other_images", 20, GRID, PREFIX, pixels=1)
    write_step(folder / "other_layers", 20, GRID, PREFIX, (2, 3, 1))
    write_step(folder / "turned", 20, GRID[::-1], PREFIX, images=1)
    return folder, maps


@pytest.fixture(scope="module")
def address(made_up, serve, chromium):
    folder, _ = made_up
    options = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1"]
    config = ["-c", str(ROOT / "configs" / "quickstart.yaml"), "--runs", str(folder), "--name", "trained"]
    assert main(["fit", *config, *options, "--attention.num_images=3", "--trainer.enable_progress_bar=false"]) == 0
    return serve(folder, run="one_head")


@pytest.fixture
def tab(open_plugin, address):
    """The tab, opened at run ``made/up`` on image 1 and step 20 with a state."""

    def open_tab(width=1400, in_tensorboard=False, **state):
        kept = {"run": "made/up", "step": 20} | state
        frame = open_plugin(address, kept, (width, 1000), in_tensorboard=in_tensorboard)
        frame.locator("figure[data-name=Map] .marks").wait_for()
        return frame

    return open_tab


def marks(frame, name="Map"):
    return frame.locator(f"figure[data-name={name}] .marks")


def at(canvas, patch, grid=GRID):
    """The middle of a patch on the screen."""
    box = canvas.bounding_box()
    row, col = divmod(patch, grid[1])
    return {"x": (col + 0.5) * box["width"] / grid[1], "y": (row + 0.5) * box["height"] / grid[0]}


def said(frame):
    """The number that the readout gives, as a share."""
    text = frame.locator(".readout").inner_text().replace("<\u202f", "")
    return float(re.search(r": ([\d.]+)\s%", text).group(1)) / 100


def roll(layers, fusion=lambda maps: maps.mean(axis=0)):
    rolled = np.eye(TOKENS)
    for layer in layers:
        mixed = fusion(layer.astype(np.float64)) + np.eye(TOKENS)
        rolled = mixed / mixed.sum(axis=-1, keepdims=True) @ rolled
    return rolled


def expected(maps, state, query, patch):
    image = [layer[state.get("image", 0)] for layer in maps[state.get("step", 20)]]
    fusion = {"mean": np.mean, "max": np.max, "min": np.min}.get(state.get("head", "mean"))
    if state["method"] == "rollout":
        matrix = roll(image, lambda each: fusion(each, axis=0))
    else:
        layer = image[state["layer"]]
        matrix = fusion(layer, axis=0) if fusion else layer[state["head"]]
    row = query if state.get("direction") != "to" else PREFIX + patch
    return matrix[row, PREFIX + patch if state.get("direction") != "to" else query]


@pytest.mark.parametrize(
    "state",
    [
        {"method": "raw", "layer": 1, "head": 2},
        {"method": "raw", "layer": 0, "head": "mean", "step": 0, "image": 1},
        {"method": "raw", "layer": 1, "head": "max"},
        {"method": "raw", "layer": 1, "head": 0, "direction": "to"},
        {"method": "rollout", "head": "mean"},
        {"method": "rollout", "head": "max"},
        {"method": "rollout", "head": "mean", "direction": "to"},
    ],
)
def test_numbers_on_the_page_are_those_of_python(tab, made_up, state):
    frame = tab(**state)
    marks(frame).click(position=at(marks(frame), 9))
    for patch in (0, 9, 23):
        marks(frame).hover(position=at(marks(frame), patch))
        wanted = expected(made_up[1], state, PREFIX + 9, patch)
        assert said(frame) == pytest.approx(wanted, abs=0.006 * max(float(wanted), 0.1))


def test_a_real_training_is_shown_with_every_step_and_image(tab, address):
    frame = tab(in_tensorboard=True, run="", step=-1)
    runs = frame.get_by_label("Run").locator("option").evaluate_all("options => options.map(({ value }) => value)")
    trained = next(run for run in runs if run.startswith("trained/"))
    frame.get_by_label("Run").select_option(trained)
    thumbs = frame.get_by_role("radiogroup", name="Probe images").get_by_role("radio")
    thumbs.nth(2).wait_for()
    assert thumbs.count() == 3
    slider = frame.get_by_label("Training step")
    assert slider.get_attribute("aria-valuetext") == "step 6, 3 of 3"
    frame.get_by_text("Comparison with baselines of relevance, over 3 images with 8 random orders each").wait_for()
    frame.locator("select[aria-label=Method]").select_option("rollout")  # of many methods: a menu
    frame.get_by_text("This row sums to 100").wait_for()
    frame.get_by_text("Comparison with baselines of rollout, mean of heads, over 3 images").wait_for()
    frame.get_by_role("checkbox", name="Mark ground truth").check()
    frame.get_by_text("Ground truth: bought (answer)").wait_for()
    slider.fill("0")
    frame.get_by_text("step 0 · 1/3").wait_for()
    assert set(frame.locator(".small .flag").all_inner_texts()) == {"uniform"}  # untrained: nothing is dead
    frame.get_by_text("no measurable difference from").first.wait_for()


def test_relevance_is_shown_first_and_its_target_reason_and_comparison_are_stated(tab):
    frame = tab()
    assert frame.get_by_role("radio", name="Relevance").get_attribute("aria-checked") == "true"
    frame.get_by_text(
        "Class-specific: relevance is attention weighted by gradients of the predicted class, dog."
    ).wait_for()
    frame.get_by_text("It is the default because it did best, or among the best").wait_for()
    over_all = frame.get_by_text(
        "Comparison with baselines of relevance, over 4 images with 8 random orders each"
    ).inner_text()
    assert (
        "deletion 0.200 (lower is better; random 0.400 ± 0.050, centre first 0.450 ± 0.040): better than both"
        in over_all
    )
    alone = frame.get_by_text("The same for this image only").inner_text()
    assert "0.145 (lower is better; random 0.154 ± 0.020" in alone
    assert "no measurable difference from either" in alone
    assert alone.endswith("A map that is not better than both has shown nothing.")
    frame.get_by_text("To stay within 1 MB: 2 of 4 images.").wait_for()


def test_a_comparison_stands_under_its_own_method_alone(tab):
    frame = tab()
    notes = frame.locator(".notes li", has_text="deletion")
    frame.get_by_role("radio", name="Raw").click()
    frame.get_by_text("Comparison with baselines of the last layer, mean of heads").wait_for()
    assert "0.200" not in notes.inner_text()
    frame.get_by_role("radio", name="Rollout").click()
    frame.get_by_text(
        "Not compared with baselines: deletion and insertion of rollout, mean of heads were not logged"
    ).wait_for()
    frame.get_by_text("Class-agnostic: rollout of layers 1 to 2, each ½ the mean of heads + ½ identity.").wait_for()
    assert not re.search("0[.]|better", notes.inner_text())
    marks(frame).click(position=at(marks(frame), 9))
    frame.get_by_text("deletion and insertion are measured for the pooled row and the predicted class only").wait_for()


def test_a_method_that_was_logged_is_in_the_menu_and_shows_its_row(tab):
    frame = tab()
    frame.get_by_role("radio", name="Mine").click()
    frame.get_by_text("Class-specific: Mine for the predicted class, dog (Doe 2020). It was logged for the").wait_for()
    frame.get_by_text("Mine was logged for the pooled row only, so it has no matrix.").wait_for()
    frame.get_by_text("deletion and insertion of Mine were not logged at this step").wait_for()
    for patch in (0, 9, 23):
        marks(frame).hover(position=at(marks(frame), patch))
        text = frame.locator(".readout").inner_text()
        value = float(re.search(r"→ .*: ([\d.]+)", text).group(1))
        assert value == pytest.approx(OWN.rows[0, PREFIX + patch], abs=0.0006)
    marks(frame).click(position=at(marks(frame), 9))
    frame.get_by_text("Mine was logged for the pooled row only: the method has no query.").wait_for()
    frame.get_by_role("radio", name="Rollout").click()
    frame.get_by_text("This row sums to 100").wait_for()


def test_a_method_that_another_run_does_not_have_falls_back_to_raw_attention(tab):
    frame = tab(method="mine", run="no_relevance")
    frame.get_by_text("No map by mine was logged at this step, so raw attention is shown.").wait_for()
    assert frame.get_by_role("radio", name="Mine").count() == 0


def test_regions_of_the_ground_truth_are_marked_and_their_values_stated(tab):
    frame = tab(method="raw", layer=1, head=0)
    before = marks(frame).evaluate("canvas => canvas.toDataURL()")
    frame.get_by_role("checkbox", name="Mark ground truth").check()
    note = frame.get_by_text("Ground truth: beak (answer)").inner_text()
    assert "; tail " in note
    assert "whole" not in note
    assert marks(frame).evaluate("canvas => canvas.toDataURL()") != before
    frame.get_by_label("Run").select_option("no_relevance")
    frame.get_by_role("checkbox", name="Mark ground truth").wait_for(state="hidden")


def test_the_answer_of_an_earlier_version_is_marked(tab, page):
    """Its index has the regions under another name, and does not say which of them is the answer."""

    def earlier(route):
        reply = route.fetch()
        index = reply.json()
        for image in index["images"]:
            del image["ground_truth"], image["answer_region"]
            image["answer"] = {"bought": [3], "buyer": [20]}
        del index["methods"]
        route.fulfill(response=reply, json=index)

    page.route(re.compile("/step[?]"), earlier)
    frame = tab()
    frame.get_by_role("checkbox", name="Mark ground truth").check()
    assert re.match("Ground truth: bought 0.*; buyer 0", frame.get_by_text("Ground truth: bought").inner_text())
    assert frame.get_by_role("radio", name="Mine").count() == 0


def test_a_run_without_relevance_falls_back_to_raw_attention_and_says_so(tab):
    frame = tab(run="no_relevance")
    frame.get_by_text("No relevance was logged at this step, so raw attention is shown. Class-agnostic").wait_for()
    frame.get_by_text("raw attention of layer 2, before which other layers mix tokens").wait_for()
    assert frame.get_by_role("radio", name="Raw").get_attribute("aria-checked") == "true"
    assert frame.get_by_role("radio", name="Relevance").is_disabled()
    frame.get_by_label("Layer", exact=True).select_option("0")
    frame.get_by_text("raw attention of layer 1, after which other layers mix tokens").wait_for()


def test_leaving_out_hides_sinks_of_many_images_and_says_so(tab, made_up):
    """The made-up heads look at one token in all five images."""
    frame = tab(run="no_relevance", method="raw", layer=0, head="mean", hide=True)
    frame.get_by_text("Left out: CLS, R1; row 2, column 6; they hold").wait_for()
    assert set(frame.locator(".small .flag").all_inner_texts()) == {"sink"}


def test_with_few_images_a_head_is_concentrated_and_nothing_but_the_prefix_is_left_out(tab, made_up):
    frame = tab(method="raw", layer=0, head=0, query=PREFIX + 9)
    frame.get_by_role("checkbox", name="Leave out prefix and sinks").check()
    row = made_up[1][20][0][0, 0, PREFIX + 9]
    note = frame.get_by_text("Left out: CLS, R1; they hold").inner_text()
    assert float(re.search(r"hold ([\d.]+)", note).group(1)) / 100 == pytest.approx(row[:PREFIX].sum(), abs=0.006)
    frame.get_by_text("Sinks are unknown here: finding tokens").wait_for()
    frame.get_by_text("unknown here: it takes four different images, and 2 were compared").wait_for()
    assert set(frame.locator(".small .flag").all_inner_texts()) == {"concentrated"}


def test_prefix_tokens_are_tiles_that_can_be_the_query(tab, made_up):
    frame = tab(method="raw", layer=0, head=1)
    tiles = frame.locator("figure[data-name=Map] .tile")
    assert [text.split(" ")[0] for text in tiles.all_inner_texts()] == ["pooled", "CLS", "R1"]
    tiles.nth(2).click()
    assert tiles.nth(2).get_attribute("aria-pressed") == "true"
    marks(frame).hover(position=at(marks(frame), 4))
    assert frame.locator(".readout").inner_text().startswith("R1 → row 1, column 5")
    assert said(frame) == pytest.approx(made_up[1][20][0][0, 1, 1, PREFIX + 4], abs=0.002)


def test_the_matrix_is_linked_to_the_image(tab, made_up):
    frame = tab(method="raw", layer=1, head=0)
    matrix = marks(frame, "Matrix")
    query, key = PREFIX + 3, PREFIX + 17
    matrix.hover(position=at(matrix, query * TOKENS + key, (TOKENS, TOKENS)))
    assert frame.locator(".readout").inner_text().startswith("row 1, column 4 → row 3, column 6")
    assert said(frame) == pytest.approx(made_up[1][20][1][0, 0, query, key], abs=0.002)
    matrix.click(position=at(matrix, query * TOKENS + key, (TOKENS, TOKENS)))
    frame.locator(".sheet .detail", has_text="row 1, column 4").wait_for()


def test_the_sheet_sorts_and_selects_heads(tab):
    frame = tab(method="rollout")
    cells = frame.locator(".small")
    assert cells.count() == 5
    frame.get_by_role("radio", name="entropy").click()
    entropies = [
        float(re.search(r"entropy ([\d.]+)", cell.get_attribute("aria-label")).group(1)) for cell in cells.all()
    ]
    assert entropies == sorted(entropies, reverse=True)
    frame.get_by_role("radio", name="by layer").click()
    frame.get_by_label("one scale").check()
    cells.nth(4).click()
    assert frame.get_by_label("Head or fusion of heads").input_value() == "2"
    assert frame.get_by_label("Layer", exact=True).input_value() == "1"
    assert frame.get_by_role("radio", name="Raw").get_attribute("aria-checked") == "true"


def test_two_steps_are_compared_on_one_scale(tab, made_up):
    frame = tab(method="raw", layer=1, head=1, query=PREFIX, step=0)
    frame.get_by_role("button", name="Pin this as A").click()
    frame.get_by_label("Training step").fill("2")
    frame.get_by_text("step 20 · 3/3").wait_for()
    bars = [frame.locator(f"figure[data-name={name}] .numbers").inner_text() for name in ("A", "Map")]
    assert bars[0] == bars[1]
    marks(frame).hover(position=at(marks(frame), 7))
    text = frame.locator(".readout").inner_text()
    before, change = (float(found.replace("\u2212", "-")) / 100 for found in re.findall(r"A ([\u2212\d.]+)\s%", text))
    rows = [made_up[1][step][1][0, 1, PREFIX, PREFIX + 7] for step in (0, 20)]
    assert before == pytest.approx(rows[0], abs=0.003)
    assert change == pytest.approx(rows[1] - rows[0], abs=0.005)
    frame.get_by_role("button", name="Unpin A").click()
    assert frame.locator("figure[data-name=A]").is_hidden()


def numbers(frame, name):
    """What the colour bar of a figure says; empty where it has none."""
    bar = frame.locator(f"figure[data-name={name}] .bar")
    return bar.locator(".numbers span").all_inner_texts() if bar.is_visible() else []


@pytest.mark.parametrize(
    ("pin", "state", "said"),
    [
        (("made/up", 20, 1), {}, "they are different images"),
        (("other_images", 20, 0), {}, "they are different images"),
        (("one_head", 5, 0), {}, "they are different images"),
        (("turned", 20, 0), {}, "they are different images"),
        (
            ("other_layers", 20, 0),
            {"method": "raw", "layer": 2, "run": "made/up"},
            "layer 3 is shown of A, layer 2 of B",
        ),
        (("other_layers", 20, 0), {"method": "raw", "layer": 0, "head": 1}, ""),
    ],
)
def test_what_cannot_be_subtracted_says_why_and_draws_no_difference(tab, pin, state, said):
    frame = tab(pin=dict(zip(("run", "step", "image"), pin, strict=True)), **state)
    change = frame.locator("figure[data-name=Difference]")
    if not said:
        change.get_by_text("no difference", exact=True).wait_for()  # of two networks, the other with a layer more
        return
    change.get_by_text(f"not drawn: {said}").wait_for()
    assert numbers(frame, "Difference") == []
    assert change.locator("canvas.base").evaluate("canvas => getComputedStyle(canvas).visibility") == "hidden"
    marks(frame).hover(position=at(marks(frame), 7))
    assert "B \u2212 A" not in frame.locator(".readout").inner_text()
    frame.get_by_text(f"A is {pin[0]}, step {pin[1]}, image {pin[2] + 1}. B \u2212 A: not drawn: {said}").wait_for()


def test_no_difference_is_said_and_is_on_a_small_scale(tab):
    frame = tab(method="raw", layer=1, head=1, query=PREFIX, pin={"run": "made/up", "step": 20, "image": 0})
    frame.locator("figure[data-name=Difference]").get_by_text("no difference", exact=True).wait_for()
    low, middle, high = numbers(frame, "Difference")
    assert float(low.replace("\u2212", "-").partition("\u202f")[0]) == -float(high.partition("\u202f")[0])
    assert 0 < float(high.partition("\u202f")[0]) < 2
    assert middle.startswith("0")


def test_the_strip_shows_the_pictures_of_the_step(tab, page, write_step, made_up):
    write_step(made_up[0] / "changing", 0, GRID, PREFIX)
    write_step(made_up[0] / "changing", 10, GRID, PREFIX, pixels=3)
    page.wait_for_timeout(3000)
    frame = tab(run="changing", step=10)
    pictures = frame.locator(".strip img")
    pictures.nth(1).wait_for()
    assert "step=10" in pictures.first.get_attribute("src")
    frame.get_by_label("Training step").fill("0")
    frame.get_by_text("step 0 \u00b7 1/2").wait_for()
    assert "step=0" in pictures.first.get_attribute("src")


@pytest.mark.parametrize(("run", "heads", "tiles"), [("one_head", 1, 1), ("many_heads", 48, 6)])
def test_networks_of_other_shapes_are_shown(tab, run, heads, tiles):
    frame = tab(run=run)
    frame.locator(".small").nth(heads - 1).wait_for()
    assert frame.locator(".small").count() == heads
    assert frame.locator("figure[data-name=Map] .tile").count() == tiles


def test_the_page_works_by_keyboard_alone(tab, page):
    frame = tab()
    marks(frame).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    frame.locator(".sheet .detail", has_text="row 2, column 3").wait_for()
    for key in ("m", "[", "d", "x", "h", ",", "j"):  # raw, layer below, …
        page.keyboard.press(key)
    frame.get_by_text("step 10 · 2/3").wait_for()
    frame.get_by_text("R1 ✕").first.wait_for()
    assert frame.get_by_role("radio", name="Raw").get_attribute("aria-checked") == "true"
    assert frame.get_by_role("radio", name="attended by").get_attribute("aria-checked") == "true"
    assert frame.get_by_role("radio", name=re.compile("^image 2")).get_attribute("aria-checked") == "true"
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    frame.get_by_text("step 20 · 3/3").wait_for()
    outline = "() => getComputedStyle(document.activeElement).outlineStyle"
    page.keyboard.press("Tab")
    assert marks(frame).evaluate(outline) == "solid"


def test_the_state_is_kept_across_reloads(tab, page):
    frame = tab(in_tensorboard=True, method="raw", layer=0, head=1, query=11, opacity=0.5)
    frame.get_by_role("radio", name="attended by").click()
    page.wait_for_url(re.compile("direction=to"))  # it is written now and then
    page.reload()
    marks(frame).wait_for()
    frame.get_by_role("radio", name="attended by", checked=True).wait_for()
    assert frame.get_by_label("Head or fusion of heads").input_value() == "1"
    assert frame.get_by_label("Opacity of the map over the image").input_value() == "0.5"


def test_the_view_is_saved_as_png(tab, page):
    frame = tab(pin={"run": "made/up", "step": 0, "image": 0})
    with page.expect_download() as download:
        frame.get_by_role("button", name="Save PNG").click()
    assert download.value.suggested_filename == "attention_made_up_step20_image1.png"
    assert Path(download.value.path()).stat().st_size > 10_000


@pytest.mark.parametrize("width", [700, 1600])
def test_nothing_is_wider_than_the_window(tab, width):
    frame = tab(width)
    assert frame.locator("html").evaluate("html => html.scrollWidth <= html.clientWidth")


def test_the_theme_follows_tensorboard_until_it_is_chosen(tab, page):
    frame = tab(in_tensorboard=True)
    theme = "html => html.dataset.theme"
    page.evaluate("document.body.classList.add('dark-mode')")
    page.wait_for_function("document.querySelector('iframe').contentDocument.documentElement.dataset.theme === 'dark'")
    frame.get_by_label("Light or dark").select_option("light")
    assert frame.locator("html").evaluate(theme) == "light"
