import subprocess
import sys

import pytest
import yaml

from vit_attn.cli import main
from vit_attn.commands.parsing.yaml_limits import MAX_CHARACTERS, MAX_DEPTH, check_limits, load_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1, y: 2, z: 3}\n" + "".join(
    f"{name}: &{name} {{p: *{before}, q: *{before}, <<: [{', '.join(['*' + before] * 50)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TOO_DEEP = "[" * 100_000 + "]" * 100_000
REFUSED = {
    "aliases": (BOMB, "more than 100,000 values"),
    "merged": (MERGED, "more than 100,000 values"),
    "deep": (TOO_DEEP, "nested more than 64 deep"),
    "deep in blocks": ("".join(" " * depth + "-\n" for depth in range(200)), "nested more than 64 deep"),
    "long": ("x" * (MAX_CHARACTERS + 1), "more than 1,000,000 characters"),
    "part of itself": ("a: &a [*a]", r"alias \*a refers to a value that contains it"),
    "many": ("[" + "1," * 100_001 + "]", "more than 100,000 values"),
    "digits": ("a: " + "9" * 5000, "integer string conversion"),
    "object": ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
    "day": ("2020-13-45", "month must be in"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_texts_beyond_the_limits_are_refused(text: str, message: str):
    with pytest.raises(yaml.YAMLError, match=message):
        load_yaml(text)


def test_texts_within_the_limits_are_read():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    check_limits(text)
    assert load_yaml("base: &b {lr: 0.1}\nrun: {<<: *b, depth: 3}\nnames: [*b, *b]") == {
        "base": {"lr": 0.1},
        "run": {"lr": 0.1, "depth": 3},
        "names": [{"lr": 0.1}, {"lr": 0.1}],
    }
    assert load_yaml("") is None


@pytest.mark.parametrize(
    "text", [BOMB, TOO_DEEP, "model:\n  arch_options: " + "9" * 5000], ids=["bomb", "deep", "digits"]
)
@pytest.mark.parametrize("where", ["-c", "--data", "--data.augment=", "--model.arch_options=", "within"])
def test_texts_beyond_the_limits_are_refused_wherever_the_command_line_has_them(
    text: str, where: str, tmp_path, capsys
):
    (tmp_path / "a.yaml").write_text(text)
    options = [where + text] if where.endswith("=") else [where, str(tmp_path / "a.yaml")]
    if where == "within":
        (tmp_path / "b.yaml").write_text(yaml.safe_dump({"model": {"arch_options": text}}))
        options = ["-c", str(tmp_path / "b.yaml")]
    assert main(["fit", "--data.dataset=coins", *options, f"--runs={tmp_path / 'runs'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vit-attn: ")
    assert error.count("\n") == 1
    assert len(error) < 900
    assert not (tmp_path / "runs").exists()


def test_pyyamls_fast_loader_would_crash():
    """Reason for the limit of the depth: when this fails, PyYAML has its own."""
    code = f"import yaml; yaml.load('[' * 100_000 + ']' * 100_000, yaml.{'CSafeLoader'})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode != 0
