from vit_attn.reports.epoch_log import EpochRow, format_line


def test_the_line_leaves_out_what_is_not_known():
    row = EpochRow(3, 30, train_loss=1.0, images_per_second=50.0, seconds=61.0)
    assert format_line(row, 10) == "epoch 3/10, step 30: train loss 1.0000; 50.0 images/s; 1 min 1 s"


def test_what_is_logged_of_an_epoch_is_what_nothing_else_logs():
    row = EpochRow(3, 30, 1.0, 0.5, 0.9, 0.6, 50.0, None, 61.0, 0.1, 5.0)
    assert row.scalars() == {
        **{"train_loss": 1.0, "train_accuracy": 0.5, "images_per_second": 50.0, "seconds": 61.0, "input_fraction": 0.1}
    }
