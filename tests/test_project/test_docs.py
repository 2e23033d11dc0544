"""The documents say what the data and the code say."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from PIL import Image

from docs.make import pages as readme
from job.config.resolve import resolve
from job.models.source import is_own
from tests.kit.doc_commands import OTHERS, PAGES, ROOT, RUN, Command, becomes, commands
from tuning.cli import COMMANDS as COMMANDS_OF_LENET
from tuning.cli import cli, run_command
from tuning.config import split

COMMANDS = list(commands())
FEW = ("--limit-train", "300", "--epochs", "1")
# What of a page is no text: code and comments.
NO_TEXT = re.compile(r"```.*?```|<!--.*?-->", re.DOTALL)


def test_tables_figures_and_reference_are_those_of_their_data():
    stale = [path.name for path, content in readme.made() if not readme.is_current(path, content)]
    assert not stale, "run make docs"


@pytest.mark.parametrize("name", ["README.md", "reference.md", "history.png"])
def test_what_was_changed_by_hand_is_noticed(name, tmp_path):
    path, content = next(pair for pair in readme.made() if pair[0].name == name)
    changed = tmp_path / name
    if name.endswith(".png"):
        picture = Image.open(path)
        picture.putpixel((5, 5), tuple(255 - value for value in picture.getpixel((5, 5))))
        picture.save(changed)
    else:
        changed.write_text(path.read_text().replace("e", "a", 1))
    assert readme.is_current(path, content)
    assert not readme.is_current(changed, content)


def test_every_table_and_figure_has_its_place():
    text = "".join(page.read_text() for page in PAGES)
    kept = {path.stem for path in (ROOT / "docs" / "results").glob("sweep-*.json")}
    for name in readme.TABLES:
        if not name.startswith("sweep-") or name in kept:
            assert f"<!-- table: {name} -->" in text
    for name in readme.figures.FIGURES:
        assert f"{name})" in text


def slugs(page: Path) -> Iterator[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.*)", NO_TEXT.sub("", page.read_text()), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", NO_TEXT.sub("", page.read_text())):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            other = (page.parent / name) if name else page
            assert other.exists(), target
            assert not anchor or anchor in slugs(other), target


def test_pages_that_code_names_are_there():
    """In messages, comments and the files beside the packages."""
    folders = ("job", "cluster", "tuning", "benchmarks", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    files += [*(ROOT / "cluster").glob("*.yaml"), *ROOT.glob("*.yaml"), *ROOT.glob("*.md")]
    named = {
        name for f in files for name in re.findall(r"(?<![-\w/])docs/[\w/]+\.md\b", f.read_text())
    }
    assert len(named) > 10
    assert not {name for name in named if not (ROOT / name).is_file()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_named_is_there(page):
    """Files of this project, targets of the Makefile and commands of `lenet`, in running text."""
    makefile = (ROOT / "Makefile").read_text()
    for words in re.findall(r"`([^`\n]+)`", NO_TEXT.sub("", page.read_text())):
        first, _, rest = words.removeprefix(".venv/bin/").partition(" ")
        if re.fullmatch(r"(job|cluster|tuning|tests|benchmarks|docs)/[\w/.-]+\.\w+", first):
            assert (ROOT / first).is_file(), words
        if first == "python" and (script := re.match(r"[\w/]+\.py", rest)):
            assert (ROOT / script[0]).is_file(), words
        if first == "python" and (
            module := re.match(r"-m ((tests|benchmarks|docs)\.[\w.]+)", rest)
        ):
            assert (ROOT / f"{module[1].replace('.', '/')}.py").is_file(), words
        if first == "make" and "=" not in rest:
            assert re.search(rf"^{rest}:", makefile, re.MULTILINE), words
        if first == "lenet" and re.match(r"\w", rest):
            assert rest.split()[0] in COMMANDS_OF_LENET, words


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text}")
def test_every_command_is_run_or_says_why_not(command):
    how = becomes(command.text)
    assert how, "enter it in tests/kit/doc_commands.py"
    if how != "run" and not how.startswith("not run: "):
        assert (ROOT / how).is_file()


def test_no_rule_is_left_over():
    texts = [command.text for command in COMMANDS]
    assert set(RUN) <= set(texts)
    for start in OTHERS:
        assert any(re.match(start, text) for text in texts), start


def lenet_arguments(text: str) -> Iterator[list[str]]:
    """The arguments of `lenet` in a command, also where it is submitted to a cluster."""
    words = shlex.split(text)
    if words[:2] == ["ray", "submit"]:
        _, _, file, script, _, *rest = words
        assert (ROOT / file).is_file()
        assert (ROOT / script).is_file()
        yield [{"job/train.py": "train", "tuning/sweep.py": "sweep"}[script], *rest]
    elif words[0] == "ray":
        for word in words:
            yield from lenet_arguments(word.partition(" -- ")[2]) if " -- " in word else ()
    elif words[0] == "lenet":
        yield words[1:]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text}")
def test_every_lenet_command_is_understood(command):
    for arguments in lenet_arguments(command.text):
        if arguments == ["--help"]:
            continue
        context = cli.make_context("lenet", list(arguments))
        name, found, rest = cli.resolve_command(context, arguments)
        with found.make_context(name, rest, parent=context) as parsed:
            given = {key: value for key, value in parsed.params.items() if value is not None}
        check_settings(name, given)


def check_settings(name: str, given: dict[str, object]) -> None:
    """Raises InputError for values that the command would refuse."""
    settings = {
        k: v
        for k, v in given.items()
        if not isinstance(v, bool) and k not in ("config_file", "on_end")
    }
    # Its file is on the page; a test below takes it from there.
    if is_own(str(settings.get("model", ""))):
        del settings["model"]
    if name == "train":
        resolve(settings)
    elif name == "sweep":
        split(settings)
    elif file := given.get("cluster_file"):
        assert (ROOT / str(file)).is_file()


def test_a_command_that_is_not_understood_is_noticed():
    with pytest.raises(click.UsageError):
        test_every_lenet_command_is_understood(Command("", "lenet train --epoch 3"))


def test_the_quick_ones_run(tmp_path, monkeypatch, mnist, capfd):
    monkeypatch.chdir(tmp_path)
    digit = Image.frombytes("L", (28, 28), mnist["t10k-images-idx3-ubyte"][16 : 16 + 784])
    digit.resize((280, 280)).save("photo.jpg")
    for text in RUN:
        words = shlex.split(text)[1:]
        code = run_command([*words, *(FEW if words[0] == "train" else ())])
        assert code == 0, (text, capfd.readouterr().err)
    assert "photo.jpg: " in capfd.readouterr().out


def files_of_models(folder: Path) -> str:
    """The page, once the files that it shows are in a folder."""
    page = (ROOT / "docs" / "models.md").read_text()
    for name, code in re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", page, re.DOTALL):
        (folder / name).write_text(code)
    return page


def test_whoever_comes_from_keras_has_the_same_model(tmp_path, lenet):
    page = files_of_models(tmp_path)
    few = "(np.zeros((64, 28, 28), 'u1'), np.arange(64) % 10)"
    code = (tmp_path / "before.py").read_text()
    code = code.replace("keras.datasets.mnist.load_data()", f"{few}, {few}")
    code = f"import numpy as np\n{code}\nprint('parameters', model.count_params())"
    before = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert before.returncode == 0, before.stderr
    (command,) = re.findall(r"^\$ lenet (train --model after.py:net .*)", page, re.MULTILINE)
    done = lenet(*command.split(), *FEW, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert before.stdout.endswith(f"parameters {json.loads(done.stdout)['parameters']}\n")


def test_a_model_of_ones_own_is_trained_as_the_page_says(tmp_path, lenet):
    page = files_of_models(tmp_path)
    (command,) = re.findall(r"^\$ lenet (train --model nets.py:small .*)", page, re.MULTILINE)
    done = lenet(*command.split(), *FEW, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["model"], result["parameters"]) == ("nets.py:small", 10_330)
