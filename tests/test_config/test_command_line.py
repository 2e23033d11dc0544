"""Where a setting comes from: option, variable, file, recipe, default; what shells complete."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from job.config.config import FIELDS
from job.config.files import read_settings
from job.config.resolve import resolve
from job.errors import InputError
from job.runs.run import find_run, open_run, prepare_run
from tests.kit.commands import command, environment
from tuning.cli import TYPED_ONLY, cli
from tuning.config import SWEEP_FIELDS
from tuning.sweep import prepare_sweep

KEPT = Path(__file__).parents[1] / "test_runs/kept"
DIGITS = str(KEPT / "digits")
QUICK = ("--model", "ffnn", "--dataset", "own", "--data", DIGITS, "--limit-train", 64)


def lenet(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    env = environment(**variables)
    return subprocess.run(command(*arguments), cwd=cwd, env=env, capture_output=True, text=True)


def config_of(folder: Path, name: str) -> dict:
    return json.loads((folder / name / "config.json").read_text())["config"]


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 2\nbatch-size = 16\nlearning_rate = 0.02\nxla = false\n")
    return path


def test_an_option_goes_before_a_variable_a_file_a_recipe_and_a_default(file, tmp_path):
    done = lenet(
        *("train", *QUICK, "--name", "r", "--epochs", 1, "--config", file),
        cwd=tmp_path,
        LENET_STORAGE=str(tmp_path / "kept"),
        LENET_EPOCHS="3",
        LENET_BATCH_SIZE="32",
        LENET_XLA="off",
        LENET_SEED="",
    )
    assert done.returncode == 0, done.stderr
    config = config_of(tmp_path / "kept", "r")
    assert (config["epochs"], config["batch_size"], config["learning_rate"]) == (1, 32, 0.02)
    assert (config["optimizer"], config["seed"], config["xla"]) == ("adam", 1, False)
    # Where runs are kept counts for all commands.
    shown = lenet("runs", "--json", cwd=tmp_path, LENET_STORAGE=str(tmp_path / "kept"))
    assert [run["name"] for run in json.loads(shown.stdout)] == ["r"]
    assert not (tmp_path / "runs").exists()


def test_variables_and_files_are_for_new_runs(tmp_path):
    """A run that goes on is as it was begun, whatever is usual here by now."""
    storage = str(tmp_path)
    begun = prepare_run({"epochs": 5, "name": "r"}, usual={"batch_size": 16, "storage": storage})
    assert (begun.config.epochs, begun.config.batch_size) == (5, 16)
    (tmp_path / "r").mkdir()
    document = {"created": 1.0, "config": begun.config.to_dict()}
    (tmp_path / "r/config.json").write_text(json.dumps(document))
    usual = {"batch_size": 64, "epochs": 9, "storage": storage, "max_failures": 7, "name": "r"}
    again = prepare_run({}, usual=usual)
    assert not again.folder.is_new
    assert again.config == begun.config
    assert prepare_run({"max_failures": 2}, usual=usual).config.max_failures == 2


def test_the_same_holds_for_sweeps(tmp_path, lenet):
    usual = {"storage": str(tmp_path), "name": "s", "trials": 3, "batch_size": 32}
    opened = prepare_sweep({"model": "ffnn", "dataset": "own", "data": DIGITS}, usual=usual)
    assert (opened.trials, opened.sweep.base["batch_size"]) == (3, 32)
    shutil.copytree(KEPT / "sweep", tmp_path / "s")
    (tmp_path / "s/winner.json").unlink(missing_ok=True)
    again = prepare_sweep({}, usual={**usual, "max_epochs": 9})
    assert again.config.trials != 3
    assert again.config.max_epochs != 9


def test_the_settings_of_another_run_can_be_taken(finished_run, tmp_path):
    done = lenet(
        *("train", "--config", finished_run / "config.json", "--limit-train", 64, "--name", "r"),
        *("--epochs", 1),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    kept, made = (
        config_of(finished_run.parent, finished_run.name),
        config_of(tmp_path / "runs", "r"),
    )
    differ = {key for key in made if made[key] != kept[key]}
    assert differ <= {"name", "storage", "limit_train", "epochs", "lanes"}


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (
            "batch_sze = 3",
            "c.toml",
            "c.toml: batch_sze: no such setting; did you mean 'batch_size'?",
        ),
        ("batch-size = 0", "c.toml", "c.toml: batch-size '0': must be between 1 and 60000"),
        (
            "epochs: 1\nepochs: 2",
            "c.yaml",
            "--config 'c.yaml': is no valid yaml: key 'epochs' stands",
        ),
        ("lanes = 3", "c.toml", "c.toml: lanes: no such setting"),
        ("model_sha256 = 'x'", "c.toml", "c.toml: model_sha256: no such setting\n"),
        ("[1]", "c.json", "--config 'c.json': holds no settings by name"),
        ("batch-size = 1\nbatch_size = 2", "c.toml", "c.toml: batch_size: stands twice; leave one"),
        ('{"epochs": 1, "epochs": 2}', "c.json", "is no valid json: key 'epochs' stands twice"),
        ("[" * 100_000, "c.json", "--config 'c.json': is no valid json: "),
        ('{"created": 1, "config": {"epoch": 1}}', "c.json", "c.json: epoch: no such setting"),
        ("", "c.ini", "--config 'c.ini': name a .toml, .yaml, .yml or .json file"),
        (None, "c.toml", "--config 'c.toml': can't be read: No such file or directory"),
    ],
)
def test_a_file_that_is_unusable_is_refused(content, name, why, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    for subject in ("train", "sweep"):
        done = lenet(subject, "--config", name, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert why in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ([] if content is None else [name])


def test_what_a_file_says_is_read_as_a_setting_has_it(tmp_path):
    """YAML makes a date of one name and a number of another; editors begin files with a mark."""
    for name, text in (
        ("a.yaml", "name: 2026-11-27"),
        ("b.yaml", "name: 5"),
        ("c.toml", "name='d'"),
    ):
        (tmp_path / name).write_text(f"\ufeff{text}\n")
        usual = {**read_settings(str(tmp_path / name), FIELDS), "storage": str(tmp_path)}
        assert prepare_run({}, usual=usual).name == text.partition("name")[2].strip(":= '")


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"LENET_BATCH_SIZE": "0"}, "error: LENET_BATCH_SIZE '0': must be between 1 and 60000"),
        ({"LENET_MODEL": "lenet6"}, "error: LENET_MODEL 'lenet6': "),
        ({"LENET_STORAGE": "/dev/null"}, "error: LENET_STORAGE '/dev/null/lenet5-"),
        ({"LENET_DATA": "nowhere", "LENET_LIMIT_TRAIN": "9"}, "error: LENET_DATA '"),
        ({"LENET_DETERMINISTIC": "maybe"}, "LENET_DETERMINISTIC"),
    ],
)
def test_a_variable_that_is_unusable_is_named(variables, why, tmp_path):
    done = lenet("train", cwd=tmp_path, **variables)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert why in line
    assert not any(tmp_path.iterdir())


def test_a_variable_that_is_nearly_one_is_named(tmp_path):
    names = {"LENET_STORAGE": "kept", "LENET_EPOCH": "3", "LENET_LAB": "", "LENET_END_NAME": "r"}
    done = lenet("runs", cwd=tmp_path, **names)
    assert done.returncode == 0
    said = "LENET_EPOCH: no option has this variable; did you mean LENET_EPOCHS?\n"
    assert done.stderr == said


def commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    return {name: cli.get_command(context, name) for name in cli.list_commands(context)}


def test_every_option_has_a_variable_but_those_that_remove():
    for name, one in commands().items():
        for option in one.params:
            if isinstance(option, click.Option):
                assert (option.envvar is None) == (option.name in TYPED_ONLY), (name, option.name)


def test_every_command_speaks_json_but_completion():
    without = [
        name for name, one in commands().items() if not any("--json" in p.opts for p in one.params)
    ]
    assert without == ["completion"]


def test_every_setting_is_in_a_group():
    for name, field in {**FIELDS, **SWEEP_FIELDS}.items():
        assert field.metadata["group"], name


def completed(typed: str, cwd: Path, **variables: str) -> list[str]:
    """The words of a line once a real bash has completed its last in all ways that it offers."""
    called = cwd / "called"
    if not called.exists():
        called.mkdir()
        (called / "lenet").write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
        (called / "lenet").chmod(0o755)
        script = lenet("completion", "bash", cwd=cwd).stdout
        # Esc * writes what Tab would show; a line's end may be in the midst of a word.
        (called / "rc").write_text(f"{script}\nbind 'set bell-style none'\nPS1=\n")
    keys = f"{typed}\x1b*\x01printf '%s\\n' \x05 > called/words\nexit\n"
    ours, theirs = pty.openpty()
    env = environment(PATH=f"{called}:{os.environ['PATH']}", TERM="dumb", **variables)
    bash = subprocess.Popen(
        ["bash", "--rcfile", called / "rc", "-i"],
        **{"cwd": cwd, "env": env, "stdin": theirs, "stdout": theirs, "stderr": theirs},
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, keys.encode())
    # It ends when the last process has closed its side.
    with contextlib.suppress(OSError):
        while os.read(ours, 4096):
            pass
    os.close(ours)
    assert bash.wait() == 0
    return (called / "words").read_text().split("\n")[:-1]


def test_bash_completes_values_too(tmp_path):
    for name in ("mine", "more"):
        shutil.copytree(KEPT / "finished", tmp_path / "runs" / name)
    shutil.copytree(KEPT / "sweep", tmp_path / "runs/searched")
    (tmp_path / "nets.py").touch()
    for typed, words in {
        "lenet ev": ["evaluate"],
        "lenet train --optimizer mom": ["momentum"],
        "lenet train --optimizer=mom": ["--optimizer=momentum"],
        "lenet train --augment-e": ["--augment-elastic"],
        "lenet train --model l": ["lenet5"],
        "lenet train --model n": ["nets.py"],
        "lenet train --config n": ["nets.py"],
        "lenet train --storage=kept --optimizer mom": ["momentum"],
        "lenet evaluate ": ["last", "mine", "more"],
        "lenet evaluate runs/mi": ["runs/mine"],
        "lenet report s": ["searched"],
        "lenet train --start-from la": ["last"],
        "lenet runs --sort val": ["val_accuracy"],
        "lenet data download fa": ["fashion-mnist"],
        "lenet completion ": ["bash", "zsh", "fish"],
    }.items():
        before = typed.rpartition(" ")[0].split()
        assert completed(typed, tmp_path) == [*before, *words], typed
    elsewhere = completed("lenet evaluate m", tmp_path, LENET_STORAGE="elsewhere")
    assert elsewhere == ["lenet", "evaluate", "m"]


@pytest.mark.parametrize(
    ("given", "field", "meant"),
    [
        ({"precision": "bf16"}, "precision", "mixed_bfloat16"),
        ({"precision": "fp32"}, "precision", "float32"),
        ({"optimizer": "adamw", "weight_decay": 0.01}, "optimizer", "adam"),
    ],
)
def test_other_words_mean_the_same_job(given, field, meant):
    config = resolve(given)
    assert getattr(config, field) == meant
    assert config.digest == resolve({**given, field: meant}).digest


def test_a_name_may_be_begun_or_last(finished_run, tmp_path, caplog):
    for number, name in enumerate(("first", "second", "secondary", "last-of-all")):
        shutil.copytree(finished_run, tmp_path / name)
        document = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**document, "created": number}))
    # Neither is what no run ever wrote in the way of the others.
    for name in ("other", "odd/config.json", "forever"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "forever/config.json").write_text(f'{{"created": 1{400 * "0"}}}')
    for given, found in (("fir", "first"), ("second", "second"), ("last", "last-of-all")):
        caplog.clear()
        assert find_run(given, str(tmp_path)).storage.uri == str(tmp_path / found)
        said = [] if given == found else [f"{given} is run {found}"]
        assert [record.getMessage() for record in caplog.records] == said
    with pytest.raises(InputError, match="RUN 'sec': 2 begin so: second, secondary"):
        find_run("sec", str(tmp_path))
    shutil.copytree(tmp_path / "first", tmp_path / "last")
    assert find_run("last", str(tmp_path)).storage.uri == str(tmp_path / "last")
    for nothing in ("other", "x"):
        with pytest.raises(InputError, match="no run in"):
            find_run(nothing, str(tmp_path))
    # A program's word is meant as it is.
    with pytest.raises(InputError, match="no run in"):
        open_run("fir", str(tmp_path))
