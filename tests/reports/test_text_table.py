import pytest
from rich.cells import cell_len

from vit_attn.reports.text_table import WIDTH, format_table

METHODS = ["rollout", "gradient rollout", "attention and relevance"]


@pytest.mark.parametrize("columns", [1, 6, 12, 24])
@pytest.mark.parametrize("cell", [".123±.004", "no measurable difference", "better than random only"])
def test_a_table_of_any_number_of_columns_fits_80_columns_and_loses_no_word(columns: int, cell: str):
    rows = [["method", *(f"head {number}" for number in range(columns))]]
    rows += [[method, *[cell] * columns] for method in METHODS]
    lines = format_table(rows).splitlines()
    assert max(map(cell_len, lines)) <= WIDTH
    text = " ".join(lines)
    for word in cell.split():
        assert text.split().count(word) == columns * len(METHODS)
    assert all(f"head {number}" in text for number in range(columns))


def test_columns_that_do_not_fit_follow_with_the_first_one_again():
    rows = [["layer", "one", "two"], ["layer 1", "1.0", "2.0"], ["layer 2", "3.0"]]
    assert format_table(rows, 12) == ("layer   one\nlayer 1 1.0\nlayer 2 3.0\n\nlayer   two\nlayer 1 2.0\nlayer 2\n")
