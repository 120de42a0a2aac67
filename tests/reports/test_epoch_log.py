import pytest

from vit_attn.reports.epoch_log import EpochRow, format_flops, format_line


def test_the_line_leaves_out_what_is_not_known():
    row = EpochRow(3, 30, train_loss=1.0, images_per_second=50.0, seconds=61.0)
    assert format_line("epoch 3/10", row) == "epoch 3/10: loss 1.000, 50.0 img/s"


def test_what_is_logged_of_an_epoch_is_what_nothing_else_logs():
    row = EpochRow(3, 30, 1.0, 0.5, 0.9, 0.6, 50.0, None, 61.0, 0.1, 5.0)
    assert row.scalars() == {
        **{"train_loss": 1.0, "train_accuracy": 0.5, "images_per_second": 50.0, "seconds": 61.0, "input_fraction": 0.1}
    }


def test_the_line_of_a_fast_long_run_fits_80_columns():
    row = EpochRow(103, 9999, 1.7381, 0.4, 1.2871, 0.87311, 12345.6, 0.41, 12.0, 0.01, 3.0 * 3600 + 1260)
    assert len(format_line("epoch 103/200", row)) <= 80


@pytest.mark.parametrize("flops", [0.0, 1e6, 9.99e8, 1e9, 4.61e13])
def test_operations_are_in_the_unit_that_is_named(flops: float):
    number, unit = format_flops(flops).split()
    assert float(number.replace(",", "")) * {"MFLOP": 1e6, "GFLOP": 1e9}[unit] == pytest.approx(
        flops, abs=5e4, rel=0.05
    )
