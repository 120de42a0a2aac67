"""The page over a real run whose patches become finer while it trains."""

import os
from pathlib import Path

import pytest

from vit_attn.cli import main

ROOT = Path(__file__).parents[2]
COARSE, FINE = (4, 4), (8, 8)


@pytest.fixture(scope="module")
def address(tmp_path_factory, serve, chromium):
    """A server of a run that logs at steps 0, 4 and 8, and whose patches change at step 5."""
    folder = tmp_path_factory.mktemp("grids")
    options = [
        *("--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1"),
        *("--model.coarse_patch_size=8", "--model.coarse_until=0.7", "--attention.num_images=2"),
        *("--attention.max_cost=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"),
    ]
    assert main(["fit", "-c", str(ROOT / "configs" / "quickstart.yaml"), f"--runs={folder}", *options]) == 0
    (run,) = folder.glob("*/*")
    return serve(folder, run=str(run.relative_to(folder))), str(run.relative_to(folder))


@pytest.fixture
def tab(open_plugin, address):
    """The tab, opened at a step."""

    def open_tab(step, **state):
        frame = open_plugin(address[0], {"run": address[1], "step": step, "method": "raw"} | state, (1440, 1000))
        frame.locator("figure[data-name=Map] .marks").wait_for()
        return frame

    return open_tab


def click(frame, patch, grid, name="Map"):
    canvas = frame.locator(f"figure[data-name={name}] .marks")
    box, (row, col) = canvas.bounding_box(), divmod(patch, grid[1])
    place = {"x": (col + 0.5) * box["width"] / grid[1], "y": (row + 0.5) * box["height"] / grid[0]}
    canvas.click(position=place)


def grid_of(frame, name="Map"):
    return frame.locator(f"figure[data-name={name}] .marks").get_attribute("aria-label").split(", ")[1].split(".")[0]


def chosen(frame):
    """The query as the sheet names it."""
    return frame.locator(".sheet .detail").first.inner_text().partition(": ")[2].split(", tokens")[0]


def test_the_slider_moves_across_the_change_with_the_grid_of_each_step(tab, page):
    frame = tab(0)
    slider, grids = frame.get_by_label("Training step"), []
    for step in (0, 4, 8):
        frame.locator(f"input[aria-valuetext^='step {step},']").wait_for()
        frame.locator("[aria-busy=false]").first.wait_for()
        grids.append(grid_of(frame))
        if step == 8 and (picture := os.environ.get("VIT_ATTN_PICTURE")):
            page.screenshot(path=picture)
        slider.press("ArrowRight")
    assert grids == ["4 rows of 4 patches", "4 rows of 4 patches", "8 rows of 8 patches"]


def test_the_chosen_patch_stays_at_its_place_in_the_image(tab):
    frame = tab(8)
    click(frame, 8 * 2 + 5, FINE)  # row 3, column 6
    assert chosen(frame) == "row 3, column 6"
    slider = frame.get_by_label("Training step")
    slider.press("ArrowLeft")
    frame.locator("input[aria-valuetext^='step 4,']").wait_for()
    frame.locator("figure[data-name=Map] .marks[aria-label*='4 rows']").wait_for()
    assert chosen(frame) == "row 2, column 3"
    slider.press("ArrowRight")
    frame.locator("figure[data-name=Map] .marks[aria-label*='8 rows']").wait_for()
    assert chosen(frame) == "row 3, column 6"


def test_steps_before_and_after_are_not_subtracted_but_show_the_same_place(tab, address):
    frame = tab(8, pin={"run": address[1], "step": 4, "image": 0})
    click(frame, 2 * 4 + 1, COARSE, "A")  # row 3, column 2
    assert chosen(frame) == "row 6, column 4"  # that contains the middle of the coarse patch
    assert grid_of(frame, "A") == "4 rows of 4 patches"
    frame.get_by_text(
        "they have other tokens: CLS, 4 \u00d7 4 patches in A, CLS, 8 \u00d7 8 patches in B"
    ).first.wait_for()
