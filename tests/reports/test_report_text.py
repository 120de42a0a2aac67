from vit_attn.reports.report_text import report_text


def test_a_class_name_of_any_length_fits_its_column():
    each = [{"name": name, "images": 1, "accuracy": 0.0, "predicted": 1} for name in ("\x1b[2J", "x" * 10_000)]
    report = {"top1": 0.0, "class_accuracy": 0.0, "calibration_error": 0.0, "calibration_bins": 15, "loss": 1.0}
    report |= {"dataset": "folder", "images": 2, "split": "test", "step": 1, "classes": each}
    text = report_text(report | {"confusion": [[0, 1], [1, 0]]})
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 200
