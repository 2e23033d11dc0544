"""The model card of a finished run, as the Hugging Face Hub shows it: Markdown below a YAML block.

https://huggingface.co/docs/hub/model-cards

Everything in it comes from the run's settings, data set and result. What others may have named,
such as the labels of their own data set, is text in the card and never markup.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from job.config.config import TrainConfig
from job.config.resolve import command_of
from job.data.catalogue import CATALOGUE, Dataset
from job.data.examples import Examples
from job.models import MODELS
from job.models.source import is_own, short_name
from job.stats import share_interval
from job.text import duration, percent

CARD_FILE = "README.md"
TEMPLATE = "model_card.md.j2"
# This project's. Not from its metadata: a checkout that is run without being installed has none.
LICENSE = "apache-2.0"
# Names of the data sets on the Hub, for its own links.
HUB_NAMES = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}


class Markup(str):
    """Text that is Markdown already."""


class _Quoted(str):
    """Text that YAML must not take for a number, a date or a truth."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Quoted,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"'),
)


def model_card(
    config: TrainConfig,
    result: Mapping[str, Any],
    examples: Examples,
    input_shape: tuple[int, ...],
    files: Mapping[str, str],
) -> bytes:
    """Writes a card.

    Args:
        config: The run's settings.
        result: The content of its `result.json`.
        examples: Its data set.
        input_shape: Of one picture: height, width, channels.
        files: The model's files beside the card, by format: `keras`, or keys of `FORMATS`.

    Returns:
        Markdown in UTF-8.

    Raises:
        ValueError: The result is not what a run writes.
    """
    train, validation = examples.training(config.limit_train)
    count = examples.dataset.test_rows
    try:
        interval = share_interval(round(result["test_accuracy"] * count), count)
        text = (
            _environment()
            .get_template(TEMPLATE)
            .render(
                metadata=metadata(config, result, examples.dataset),
                about=_about(config),
                config=config,
                settings={k: v for k, v in config.fixed_dict().items() if v is not None},
                command=Markup(command_to_repeat(config, result["device"])),
                result=result,
                interval=interval,
                dataset=examples.dataset,
                validated=examples.dataset.validated,
                counts={"training": len(train), "validation": len(validation), "test": count},
                input_shape=input_shape,
                files=files,
                custom_objects=_custom_objects(result.get("own_parts", [])),
            )
        )
    except (KeyError, TypeError, AttributeError, OverflowError, jinja2.UndefinedError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    # Half of a surrogate pair is no text; a run must not fail at its end for it.
    return text.encode(errors="replace")


def _about(config: TrainConfig) -> str:
    """What is known of the model: of a built-in one what its function says."""
    if is_own(config.model):
        return (
            f"A model of its user's own, {config.model}: the file had SHA-256 "
            f"{config.model_sha256}; the architecture, in architecture.json, has "
            f"{config.architecture_sha256}."
        )
    return "\n\n".join((inspect.getdoc(MODELS[config.model]) or "").split("\n\n")[:2])


def _custom_objects(names: Sequence[str]) -> Markup:
    """What `load_model` is given beside the file, for a model with parts of the user's own."""
    given = ", ".join(f'"{name}": {name}' for name in names if name.isidentifier())
    return Markup(f", custom_objects={{{given}}}" if given else "")


def metadata(config: TrainConfig, result: Mapping[str, Any], dataset: Dataset) -> Markup:
    """The YAML block, with the fields of the Hub's `modelcard.md`.

    https://github.com/huggingface/hub-docs/blob/main/modelcard.md
    """
    is_known = config.dataset in CATALOGUE
    hub_name = _Quoted(HUB_NAMES[config.dataset] if is_known else dataset.name)
    accuracy = {"type": "accuracy", "value": float(result["test_accuracy"])}
    document = {
        # Who brings data of their own says what may be done with what was learnt from them.
        "license": LICENSE if is_known else "unknown",
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["keras", "tensorflow", short_name(config.model)],
        **({"datasets": [hub_name]} if is_known else {}),
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": _Quoted(config.name),
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {
                            "type": hub_name,
                            "name": _Quoted(dataset.name),
                            "split": "test",
                        },
                        "metrics": [accuracy],
                    }
                ],
            }
        ],
    }
    return Markup(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def command_to_repeat(config: TrainConfig, device: str = "") -> str:
    """What to type to train the same model elsewhere: where the data lie here means nothing there.

    The settings are numbers and words of ours; no user's text is among them.
    """
    values = config.to_dict() | {
        "data": None if config.dataset in CATALOGUE else "PLACE",
        "start_from": config.start_from and "RUN",
    }
    return command_of(TrainConfig(**values), device)


def escaped(value: Any) -> str:
    """A value as one line of Markdown text without markup, fit for a table."""
    if isinstance(value, Markup):
        return value
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    entities = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", entities)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        finalize=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=percent, counted="{:,}".format, duration=duration, markup=Markup
    )
    return environment
