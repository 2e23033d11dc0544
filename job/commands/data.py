"""`lenet data`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import click

from job.config.config import DATASETS, FIELDS
from job.config.fields import checked_place
from job.config.flags import PLACE, beginnings, json_option, variable
from job.errors import InputError, JobError


@click.command()
@click.argument(
    "action", type=click.Choice(["show", "verify", "download", "stage"]), default="show"
)
@click.argument(
    "names",
    metavar="[DEST] [DATASET]...",
    nargs=-1,
    shell_complete=beginnings([name for name in DATASETS if name != "own"], or_file=True),
)
@click.option("--data", type=PLACE, metavar="PLACE", help="Look there instead of in the cache.")
@click.option(
    "--name",
    envvar=variable("data_name"),
    metavar="NAME",
    help="Of the data set that `stage` is to make of what is at --data.",
)
@click.option("--image-size", metavar="N|HxW", help=FIELDS["image_size"].metadata["help"])
@click.option("--validation", metavar="SHARE", help=FIELDS["validation"].metadata["help"])
@json_option
def data(
    action: str,
    names: Sequence[str],
    data: str | None,
    name: str | None,
    image_size: str | None,
    validation: str | None,
    as_json: bool,
) -> None:
    """Show, verify, download or stage the data sets (those named, or MNIST and Fashion-MNIST).

    show lists what is cached, of all sets; verify checks every byte against the published SHA-256;
    download fetches what is missing; stage writes Parquet to DEST, a folder or s3://BUCKET/PREFIX,
    from which `lenet train --data DEST/DATASET` reads. With --name it makes a data set of your own
    pictures, for --dataset own: --data is a folder of class folders, .npz, CSV of pixels, Parquet
    of Hugging Face, or IDX files.
    """
    from job.data.catalogue import CATALOGUE, SMALL
    from job.data.sources import cached, obtain
    from job.data.splits import test_split, training_splits
    from job.errors import nearest

    if action == "stage":
        if not names:
            raise InputError("DEST", None, "say where to: a folder or s3://BUCKET/PREFIX")
        destination, *names = names
        destination = checked_place("DEST", destination)
        if name is not None:
            asked = {"image_size": image_size, "validation": validation}
            staged = _stage_own(destination, names, data, name, asked)
            print(json.dumps({name: staged["place"]}) if as_json else staged["text"])
            return
    for name in names:
        if name not in CATALOGUE:
            choices = ", ".join(CATALOGUE)
            raise InputError("DATASET", name, f"choose one of {choices}{nearest(name, CATALOGUE)}")
    if action == "stage":
        from job.data.examples import stage

        places = dict(stage(destination, names or SMALL, data))
        lines = "\n".join(f"{name}: {place}" for name, place in places.items())
        print(json.dumps(places) if as_json else lines)
        return
    documents, missing = {}, []
    for name in names or (CATALOGUE if action == "show" else SMALL):
        dataset = CATALOGUE[name]
        if action == "download":
            obtain(name, data)
        # Also then: what was fetched may not have been kept.
        found = cached(name, data)
        document: dict[str, Any] = {"place": str(found.place), "problem": found.problem or None}
        if found.contents is None:
            missing.append(name)
        else:
            train, rest = training_splits(found.contents, dataset)
            document["examples"] = {
                "training": len(train),
                "validation": len(rest),
                "test": len(test_split(found.contents, dataset)),
            }
            document["first_labels"] = [dataset.labels[label] for label in train.labels[:10]]
            if action == "verify":
                document["sha256"] = {file.name: file.sha256 for file in dataset.files}
        documents[name] = document
        if not as_json:
            print(_text(name, document))
    if as_json:
        print(json.dumps(documents))
    if action == "verify" and missing:
        raise JobError(f"not verified: {', '.join(missing)}; `lenet data download` fetches them")
    if action == "download" and missing:
        raise JobError(
            f"fetched, but not kept: {', '.join(missing)}; XDG_CACHE_HOME moves the cache"
        )


def _text(name: str, document: Mapping[str, Any]) -> str:
    problem = f" ({document['problem']})" if "examples" not in document else ""
    lines = [f"{name}: {document['place']}{problem}"]
    if "examples" in document:
        counts = ", ".join(f"{count:,} {part}" for part, count in document["examples"].items())
        lines += [f"   {counts}", "   first ten labels: " + ", ".join(document["first_labels"])]
    lines += [f"   ok {sha256} {file}" for file, sha256 in document.get("sha256", {}).items()]
    return "\n".join(lines)


def _stage_own(
    destination: str,
    others: Sequence[str],
    place: str | None,
    name: str,
    asked: Mapping[str, str | None],
) -> dict[str, str]:
    from job.config.fields import run_name
    from job.config.resolve import resolve
    from job.data.convert import Conversion
    from job.data.examples import stage_own

    if others:
        raise InputError("DATASET", others[0], "--name makes one of --data; leave this out")
    if place is None:
        raise InputError("--name", name, "needs --data, where the pictures are")
    try:
        run_name(name)
    except ValueError as problem:
        raise InputError("--name", name, str(problem)) from None
    config = resolve({option: value for option, value in asked.items() if value is not None})
    description, uri = stage_own(destination, place, name, Conversion.of(config))
    command = f"   lenet train --dataset own --data {shlex.quote(uri)}"
    return {"place": uri, "text": "\n".join([description, f"{name}: {uri}", command])}
