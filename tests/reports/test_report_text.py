from rich.cells import cell_len

from vit_attn.reports.report_text import report_text


def test_a_class_name_of_any_length_fits_its_column():
    each = [{"name": name, "images": 1, "accuracy": 0.0, "predicted": 1} for name in ("\x1b[2J", "x" * 10_000)]
    report = {"top1": 0.0, "class_accuracy": 0.0, "calibration_error": 0.0, "calibration_bins": 15, "loss": 1.0}
    report |= {"dataset": "folder", "images": 2, "split": "test", "step": 1, "classes": each}
    text = report_text(report | {"confusion": [[0, 1], [1, 0]]})
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_table_of_classes_fits_80_columns_and_its_numbers_are_below_each_other():
    names = ["cat", "金色寻回犬 " * 10, "a very long name of a class " * 5]
    each = [{"name": name, "images": 10, "accuracy": 0.5, "predicted": 10} for name in names]
    report = {"top1": 0.5, "class_accuracy": 0.5, "calibration_error": 0.0, "calibration_bins": 15, "loss": 1.0}
    report |= {"dataset": "folder", "images": 30, "split": "test", "step": 1, "classes": each}
    lines = report_text(report | {"confusion": [[5, 5, 0], [0, 5, 5], [5, 0, 5]]}).splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert len({cell_len(line.partition("0.5000")[0]) for line in lines[-3:]}) == 1
