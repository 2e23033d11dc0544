"""`lenet data`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import click

from job.config.config import FIELDS
from job.config.fields import checked_place
from job.config.flags import PLACE
from job.errors import InputError, JobError


@click.command()
@click.argument(
    "action", type=click.Choice(["show", "verify", "download", "stage"]), default="show"
)
@click.argument("names", metavar="[DEST] [DATASET]...", nargs=-1)
@click.option("--data", type=PLACE, metavar="PLACE", help="Look there instead of in the cache.")
@click.option(
    "--name", metavar="NAME", help="Of the data set that `stage` is to make of what is at --data."
)
@click.option("--image-size", metavar="N|HxW", help=FIELDS["image_size"].metadata["help"])
@click.option("--validation", metavar="SHARE", help=FIELDS["validation"].metadata["help"])
def data(
    action: str,
    names: Sequence[str],
    data: str | None,
    name: str | None,
    image_size: str | None,
    validation: str | None,
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
            _stage_own(destination, names, data, name, asked)
            return
    for name in names:
        if name not in CATALOGUE:
            choices = ", ".join(CATALOGUE)
            raise InputError("DATASET", name, f"choose one of {choices}{nearest(name, CATALOGUE)}")
    if action == "stage":
        from job.data.examples import stage

        for name, place in stage(destination, names or SMALL, data):
            print(f"{name}: {place}")
        return
    missing = []
    for name in names or (CATALOGUE if action == "show" else SMALL):
        dataset = CATALOGUE[name]
        if action == "download":
            obtain(name, data)
        # Also then: what was fetched may not have been kept.
        found = cached(name, data)
        print(f"{name}: {found.place}" + ("" if found.contents else f" ({found.problem})"))
        if found.contents is None:
            missing.append(name)
            continue
        train, rest = training_splits(found.contents, dataset)
        test = test_split(found.contents, dataset)
        print(f"   {len(train):,} training, {len(rest):,} validation, {len(test):,} test")
        print("   first ten labels: " + ", ".join(dataset.labels[i] for i in train.labels[:10]))
        if action == "verify":
            for file in dataset.files:
                print(f"   ok {file.sha256} {file.name}")
    if action == "verify" and missing:
        raise JobError(f"not verified: {', '.join(missing)}; `lenet data download` fetches them")
    if action == "download" and missing:
        raise JobError(
            f"fetched, but not kept: {', '.join(missing)}; XDG_CACHE_HOME moves the cache"
        )


def _stage_own(
    destination: str,
    others: Sequence[str],
    place: str | None,
    name: str,
    asked: Mapping[str, str | None],
) -> None:
    from job.config.config import resolve
    from job.config.fields import run_name
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
    print(description)
    print(f"{name}: {uri}")
    print(f"   lenet train --dataset own --data {shlex.quote(uri)}")
