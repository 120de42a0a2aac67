import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from vit_attn.commands.parsing import light_parser
from vit_attn.commands.parsing.light_parser import check_options
from vit_attn.commands.parsing.model_option import expand_model
from vit_attn.commands.parsing.own_data import names_own_data
from vit_attn.commands.parsing.shipped_configs import resolve_shipped
from vit_attn.errors import UserError
from vit_attn.parts import split_imports

pytestmark = pytest.mark.slow  # it makes the whole parser, and parses with it
ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MISTAKES = [
    ["--model.arh=x"],
    ["--model.arh", "x"],
    ["--trainer.verbos=1"],
    ["--trainer.max_epoch=1"],
    ["--optimizer=SGD"],
    ["--verbos=3"],
    ["a.yaml"],
    ["--data.skip_damaged=true"],
    ["--data.augment.flop=1"],
    ["--data.augment={flop: 1}"],
    ["--model.lr"],
    ["--model.lr", "--name=x"],
    ["--model.lr=abc"],
    ["--model.compile=maybe"],
    ["--model.decay=cosin"],
    ["--model.train=hea"],
    ["--model.arch_options=3"],
    ["--model=3"],
    ["--trainer.max_epochs=x"],
    ["--trainer.precision=bf17"],
    ["--attention.methods=3"],
    ["--attention.layers=[a]"],
    ["--attention.layers+=a"],
    ["--data.columns.x=label"],
    ["-c", "nope.yaml"],
    ["-c"],
    ["--config=."],
    ["-c", "{model: {lrr: 2}}"],
    ["-c", "{modl: {lrr: 2}}"],
    ["-c", "{nam: x}"],
    ["-c", "{data: {augment: {flop: 2}}}"],
    ["-c", "{model: {lr: abc}}"],
    ["-c", "{name: [}"],
    ["-c", "[a]"],
    ["-c", "binary.yaml"],
]
"""Options of ``fit`` that the light parser refuses."""
LEFT = [
    ["--data.seed=3"],
    ["--model.num_classes=3"],
    ["--trainer.logger.x=3"],
    ["--trainer.callbacks=NoSuchCallback"],
    ["--trainer.callbacks+=no.such.Callback"],
    ["--trainer.logger.init_args.x=3"],
    ["--resume"],
    ["-c", "s3://bucket/a.yaml"],
    ["-c", "{data: {augment: {class_path: x.Y, init_args: {flip: 0.5}}}}"],
    ["-c", "{trainer: {callbacks: [{class_path: a.b}]}}"],
    ["--trainer.callbacks.help=NoSuchCallback"],
]
"""Options of ``fit`` that only the whole parser can refuse."""
ACCEPTED = [
    [],
    *(["-c", str(path)] for path in CONFIGS),
    ["-c", str(CONFIGS[0]), "-c", str(CONFIGS[1]), "--model.lr=1e-3"],
    ["--model.lr", "1e-3", "--trainer.limit_val_batches", "0.5", "--trainer.max_steps", "-1"],
    ["--model.arch_options.depth=3", "--model.arch_options.x", "a"],
    ["--model.arch_options={depth: 3}"],
    ["--model.train=2", "--model.ema=null", "--model.compile=true"],
    ["--data.augment.flip=0.5", "--data.augment.flip_alternating=true"],
    ["--data.augment={flip: 0.5}"],
    ["--data={seed: 3, batch_size: 4}"],
    ["-c", "{data: {seed: 3}, model: {num_classes: 10}}"],
    ["-c", "{trainer: {callbacks+: [{class_path: EarlyStopping, init_args: {monitor: val/loss}}]}}"],
    ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"],
    ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.init_args.monitor=val/loss"],
    ["--trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: val/loss}}]"],
    ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=x"],
    ["--trainer.logger=false"],
    ["--trainer.strategy=ddp", "--trainer.devices=[0, 1]"],
    ["--trainer.strategy", "vit_attn.training.sharding.FSDP2", "--trainer.devices", "2"],
    ["--trainer.max_time=00:01:00:00", "--checkpoint.train_time_interval=00:05:00"],
    ["--attention.layers=[1, -1]", "--attention.layers+=2", "--attention.methods=[relevance]"],
    ["--seed_everything=true", "--resume", "last", "--print_config", "--print_config=skip_default"],
]
"""Options of ``fit`` that both parsers accept."""


@pytest.fixture(scope="module")
def lightning():
    spec = importlib.util.spec_from_file_location("option_table", ROOT / "scripts" / "option_table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.make_command_line("fit")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary.yaml").write_bytes(b"name: \xff\n")
    Path("a.ckpt").touch()


@pytest.mark.parametrize("options", MISTAKES, ids=" ".join)
def test_a_mistake_has_the_message_of_the_whole_parser(options: list[str], lightning):
    with pytest.raises(UserError) as light:
        check_options("fit", options)
    with pytest.raises(UserError) as whole:
        type(lightning).parse_arguments(lightning, lightning.parser, ["fit", *options])
    assert str(light.value) == str(whole.value)


@pytest.mark.parametrize("options", LEFT, ids=" ".join)
def test_a_mistake_that_takes_an_import_to_find_is_left_to_the_whole_parser(options: list[str]):
    check_options("fit", options)


@pytest.mark.parametrize("options", ACCEPTED, ids=" ".join)
def test_what_the_whole_parser_accepts_is_accepted(options: list[str], lightning):
    check_options("fit", options)
    parsed = [each for each in options if not each.startswith("--print_config")]
    lightning.parser.parse_args(["fit", *parsed])


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_options_of_other_commands_are_checked(command: str):
    check_options(command, ["--ckpt_path=a.ckpt", "--data.batch_size=3", "--data={dataset: coins}"])
    with pytest.raises(UserError, match="unknown option --ckpt_pth, did you mean '--model'"):
        check_options(command, ["--ckpt_pth=a.ckpt"])


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_missing_checkpoint_is_found(command: str):
    with pytest.raises(UserError, match=f"{command} needs a trained network: --model runs/NAME/RUN"):
        check_options(command, ["--data.batch_size=3"])
    for options in (["--ckpt_path=b.ckpt"], ["-c", "{ckpt_path: b.ckpt}"]):
        with pytest.raises(UserError, match=r"checkpoint not found: b\.ckpt"):
            check_options(command, options)
    check_options(command, ["--print_config"])
    check_options("fit", ["--ckpt_path=b.ckpt"])  # a requeued run goes on from its own


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line
        for page in PAGES
        for block in re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if re.match(r"(\.venv/bin/)?vit-attn (fit|validate|test) ", line)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_pages_are_accepted(line: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    _, command, *options = shlex.split(line.partition(" > ")[0], comments=True)
    try:
        options = resolve_shipped(split_imports(options)[0])
        if names_own_data(options):
            return  # whose arguments only its class knows
        check_options(command, options if command == "fit" else expand_model(command, options))
    except UserError as error:
        assert re.search("there is no file|checkpoint not found", str(error))  # noqa: PT017


def test_with_another_version_of_lightning_its_options_are_left_to_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(light_parser, "version", lambda _: "2.99")
    for options in (["--trainer.new=1"], ["--trainer.max_epochs=many"], ["--new=1"], ["-c", "{trainer: {new: 1}}"]):
        check_options("fit", options)
    for options in (["--model.new=1"], ["--data.batch_size=many"], ["-c", "{attention: {new: 1}}"]):
        with pytest.raises(UserError):
            check_options("fit", options)
