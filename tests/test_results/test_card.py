"""A model card says what the run's record says, and what others named stays text."""

from __future__ import annotations

import dataclasses
import re
from importlib.metadata import metadata

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from job.config.config import TrainConfig
from job.config.resolve import resolve
from job.data.catalogue import CATALOGUE
from job.data.examples import Examples
from job.data.splits import test_split, training_splits
from job.results.card import model_card
from job.runs.run import open_run
from job.stats import share_interval
from tests.kit.commands import result_of

SHAPE = (28, 28, 1)
FILES = {"keras": "model.keras"}
HOSTILE = [
    "<script>alert(1)</script>",
    "| a | b |\n|---|---|",
    "\n---\nlicense: mit\n---\n# Mine",
    "```\n[a](javascript:alert(1)) ![b](http://x/y.png) **c** `d` _e_ ~~f~~ $g$",
    "{{ config }} {% raw %}",
    "&lt;b&gt; \\| \\\\",
    "\ud800\x00\x1b[31m\u2028\u0085",
    "1e5",
    "null",
]


def sections(card: str) -> tuple[dict, str]:
    """The YAML block, parsed, and the Markdown below."""
    empty, block, body = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    assert empty == ""
    return yaml.safe_load(block), body


def structure(body: str) -> list[str]:
    """The kinds of all elements of a Markdown text, those inside of lines too."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
    kinds = []
    for token in tokens:
        kinds += [token.type, *(child.type for child in token.children or [])]
    return kinds


@pytest.fixture(scope="module")
def result(finished_run) -> dict:
    return result_of(finished_run)


def card_of(config, result, mnist, **named) -> str:
    dataset = dataclasses.replace(CATALOGUE["mnist"], **named)
    return model_card(config, result, Examples(dataset, mnist), SHAPE, FILES).decode()


def test_a_finished_run_has_its_card(finished_run, result, mnist):
    found, body = sections((finished_run / "README.md").read_text())
    assert found["license"] == metadata("lenet-on-ray")["License-Expression"].lower()
    assert found["library_name"] == "keras"
    assert found["pipeline_tag"] == "image-classification"
    assert "lenet5" in found["tags"]
    assert found["datasets"] == ["ylecun/mnist"]
    assert found["metrics"] == ["accuracy"]
    (entry,) = found["model-index"]
    assert entry["name"] == "smoke"
    (measured,) = entry["results"]
    assert measured["dataset"]["split"] == "test"
    assert measured["metrics"] == [{"type": "accuracy", "value": result["test_accuracy"]}]

    train, validation = training_splits(mnist, CATALOGUE["mnist"], 6000)
    test = test_split(mnist, CATALOGUE["mnist"])
    for count in map(len, (train, validation, test)):
        assert f"{count:,}" in body
    low, high = share_interval(round(result["test_accuracy"] * len(test)), len(test))
    assert f"**{result['test_accuracy']:.2%}**, 95 % interval {low:.2%} to {high:.2%}" in body
    for value in (result["val_accuracy"], result["baseline_accuracy"]):
        assert f"{value:.2%}" in body
    for file in CATALOGUE["mnist"].files:
        assert file.sha256 in body
    for name, version in result["versions"].items():
        assert f"| {name} | {version} |" in body
    for name in ("seed", "batch\\_size", "optimizer", "learning\\_rate"):
        assert f"| {name} | {result[name.replace(chr(92), '')]} |" in body
    for text in (result["best_weights_sha256"], f"{result['parameters']:,}", "6,000 training rows"):
        assert text in body
    assert str(finished_run.parent) not in body


def test_the_command_in_it_trains_the_same(finished_run):
    body = (finished_run / "README.md").read_text()
    (command,) = re.findall(r"^\$ lenet train (.*)$", body, re.MULTILINE)
    pairs = re.findall(r"--(\S+) (\S+)", command)
    given = {name.replace("-", "_"): value for name, value in pairs}
    assert resolve(given).digest == open_run(str(finished_run)).config.digest


def test_where_data_lie_here_is_not_told(result, mnist):
    kept = TrainConfig(data="/home/me/secret", name="r")
    assert "secret" not in card_of(kept, result, mnist)
    own = TrainConfig(dataset="own", data="/home/me/secret", name="r")
    card = card_of(own, result, mnist, name="mine")
    assert "--dataset own " in card
    assert "--data PLACE" in card
    assert "secret" not in card
    assert sections(card)[0]["license"] == "unknown"
    assert "datasets" not in sections(card)[0]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_others_becomes_markup_or_metadata(text, result, mnist):
    own = TrainConfig(dataset="own", data="x", name="r")
    plain = sections(card_of(own, result | {"device": "cpu"}, mnist, name="mine"))
    labels = (text, *"123456789")
    card = card_of(own, result | {"device": text}, mnist, name=text, labels=labels)
    found, body = sections(card)
    assert structure(body) == structure(plain[1])
    dataset = found["model-index"][0]["results"][0]["dataset"]
    assert dataset == {"type": text, "name": text, "split": "test"}
    assert found.keys() == plain[0].keys()


@given(st.text())
@example("1. one")
@example("- one")
@settings(max_examples=15)
def test_any_label_is_one_text(result, mnist, text):
    config = TrainConfig(name="r")
    plain = structure(sections(card_of(config, result, mnist, labels=("a",)))[1])
    assert structure(sections(card_of(config, result, mnist, labels=(text,)))[1]) == plain


@pytest.mark.parametrize("name", ["1e5", "0x1F", "2026-01-01", "true", "NaN", "1.0"])
def test_a_name_like_a_number_stays_a_name(name, result, mnist):
    card = card_of(TrainConfig(name=name), result, mnist)
    assert sections(card)[0]["model-index"][0]["name"] == name
    # Readers of YAML 1.2 take other words for numbers than PyYAML does.
    assert f'name: "{name}"' in card
    assert f"\n# {name}\n" in card
