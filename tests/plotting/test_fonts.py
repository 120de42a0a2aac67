from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vit_attn.plotting import fonts
from vit_attn.plotting.canvas import Canvas, text_width

HAN = Path("/fonts/wqy-microhei.ttc")
MADE_UP = {
    Path("/fonts/AAA-Decorated.ttf"): "犬猫",
    Path("/fonts/NotoSansCJK-Bold.ttc"): "犬猫개",
    HAN: "犬猫",
    Path("/fonts/NotoSansDevanagari-Regular.ttf"): "क",
}


def covers(path: Path) -> frozenset[int]:
    return frozenset(map(ord, MADE_UP.get(path, "")))


def test_fonts_are_chosen_by_their_characters_plain_ones_first_and_no_more_than_needed():
    assert fonts.choose_fonts("犬猫", MADE_UP, covers) == [HAN]
    assert fonts.choose_fonts("犬क", MADE_UP, covers) == [HAN, Path("/fonts/NotoSansDevanagari-Regular.ttf")]
    assert fonts.choose_fonts("개", MADE_UP, covers) == [Path("/fonts/NotoSansCJK-Bold.ttc")]
    assert fonts.choose_fonts("ก", MADE_UP, covers) == []


@pytest.mark.parametrize("text", ["plain name", "Größe ± 5 µm", "Ωμέγα, кошка", "rows … angle", ""])
def test_the_system_is_not_searched_for_texts_that_dejavu_has(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fonts, "_known_fonts", lambda: pytest.fail("searched"))
    assert fonts.fonts_for(text) == (fonts.DEFAULT,)
    assert [part for part, _ in fonts.runs(text, 12.0)] == [text]


def test_characters_that_no_font_has_are_reported_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(fonts, "_known_fonts", lambda: ())
    monkeypatch.setattr(fonts, "_REPORTED", [])
    fonts._fallbacks.cache_clear()
    for text in ("犬", "犬", "name 猫"):
        assert fonts.fonts_for(text) == (fonts.DEFAULT,)
    Canvas(1, 1, 100).write("犬", 0.5, 0.5)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no font of this system has 犬" in line
    assert "fonts-noto-cjk" in line
    fonts._fallbacks.cache_clear()


def test_a_damaged_font_has_no_characters(tmp_path: Path):
    path = tmp_path / "broken.ttf"
    path.write_bytes(b"no font")
    assert fonts.coverage(path) == frozenset()


def font_of_han() -> list[Path]:
    return fonts.choose_fonts("犬猫", fonts._known_fonts())


@pytest.mark.skipif(not font_of_han(), reason="no font of this system has Chinese characters")
def test_chinese_names_are_drawn_beside_latin_ones_and_are_not_boxes():
    def drawn(text: str) -> np.ndarray:
        canvas = Canvas(2, 0.5, 100)
        canvas.write(text, 0.1, 0.25, 12, "lm")
        canvas.write_upward(text, 1.8, 0.25, 8)
        return canvas.pixels()

    assert (drawn("犬 cat") != drawn("猫 cat")).any()  # boxes are all the same
    assert text_width("犬 cat", 12, 100) == pytest.approx(text_width("犬", 12, 100) + text_width(" cat", 12, 100))
    figure = Figure()
    FigureCanvasAgg(figure)
    text = figure.text(0, 0, "犬", family=fonts.font_families(["犬", "cat"]))
    figure.canvas.draw()  # matplotlib warns of glyphs that are missing, and warnings are errors
    assert text.get_window_extent().width > 0
