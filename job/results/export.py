"""A finished run's model as other programs read it, each file held against the Keras model.

An export is a folder: the model in each format, its card `README.md`, and `export.json` with the
labels, what the comparison found and the SHA-256 of every file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.errors import InputError, JobError
from job.extras import check_installed
from job.reasons import text_of
from job.results.card import CARD_FILE, model_card
from job.results.export_formats import FORMATS, Format
from job.runs.data import examples_of
from job.runs.run import RESULT_FILE, Run, verified_best
from job.storage.base import WRITING
from job.storage.documents import to_json
from job.versions import versions
from job.waiting import waiting

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "export.json"
# Sums in another order move float32 probabilities by about 1e-7; another kernel, a lost layer or a
# wrong layout of the weights moves them by far more than this.
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """An exported model beside the Keras model, on the same pictures.

    Attributes:
        examples: How many.
        other_labels: For how many the most probable label is another.
        largest_difference: Between two probabilities, over all pictures and labels.
    """

    examples: int
    other_labels: int
    largest_difference: float

    @property
    def is_same(self) -> bool:
        """Whether no label differs, and no probability by more than `TOLERANCE`."""
        # Not `>`: a NaN must not pass.
        return self.other_labels == 0 and self.largest_difference <= TOLERANCE

    def __str__(self) -> str:
        return (
            f"{self.other_labels:,} of {self.examples:,} labels differ from Keras', "
            f"probabilities by at most {self.largest_difference:.1e} (limit {TOLERANCE:.0e})"
        )


def export_run(
    run: Run,
    names: Sequence[str],
    target: Path,
    *,
    data: str | None = None,
    overwrite: bool = False,
    verbose: bool = False,
) -> dict[str, Any]:
    """Exports the best weights of a finished run, seen whole or not at all.

    The comparison uses the pictures of the test set and not its labels: no accuracy comes of it,
    so the test set decides nothing here. A run in another precision is exported, and compared, in
    float32, in which its weights are kept.

    Args:
        run: The run.
        names: Keys of `FORMATS`.
        target: The folder to make.
        data: Where to get the data set instead of where the run's settings say.
        overwrite: Replace an earlier export there.
        verbose: Let the frameworks log.

    Returns:
        The content of `export.json`.

    Raises:
        InputError: The run has not finished, the folder can't be made or a library is missing;
            nothing was written.
        JobError: The run can't be trusted, or a written file does not predict the same; nothing
            was left.
    """
    result = run.result()
    if result is None:
        raise InputError("RUN", run.name, f"has not finished; go on with: {run.command}")
    check_libraries(names)
    with made(target, overwrite=overwrite) as folder:
        state = verified_best(run)
        examples = examples_of(run, data)
        images = examples.test().images

        from job.engine.runtime import start_anywhere

        start_anywhere(verbose=verbose)
        from job.engine.scoring import predict, scale
        from job.results.evaluate import model_with

        labels = examples.dataset.labels
        model = model_with(run, state.best_weights, examples.dataset, precision="float32")
        shape = model.input_shape[1:]
        files = {name: FORMATS[name].path for name in names}
        try:
            card = model_card(run.config, result, examples, shape, files)
        except ValueError as error:
            raise JobError(f"{run.storage.uri}/{RESULT_FILE} can't be trusted: {error}") from error
        expected, pixels = predict(model, images), scale(images).numpy()
        texts = {
            "run": run.name,
            "labels": json.dumps(labels),
            "weights_sha256": result["best_weights_sha256"],
        }
        compared = {}
        for name in names:
            written = FORMATS[name]
            with waiting(f"{written.path} to be written and read back"):
                written.write(model, folder / written.path, texts)
                compared[name] = dataclasses.asdict(compare(written, folder, pixels, expected))
        (folder / CARD_FILE).write_bytes(card)
        document = {
            "run": run.name,
            "model": run.config.model,
            "dataset": examples.dataset.name,
            "labels": labels,
            "input_shape": [None, *shape],
            "trained_in": run.config.precision,
            "best_weights_sha256": result["best_weights_sha256"],
            "formats": {name: {"path": files[name], **compared[name]} for name in names},
            "files": {path: sha256_of_file(folder / path) for path in files_below(folder)},
            "versions": versions(),
        }
        (folder / MANIFEST).write_bytes(to_json(document))
    return document


def check_libraries(names: Sequence[str]) -> None:
    """Raises InputError, saying how to get it, for a library that is not installed."""
    for name in names:
        check_installed("export", "--format", name, FORMATS[name].libraries)


def compare(written: Format, folder: Path, pixels: np.ndarray, expected: np.ndarray) -> Comparison:
    """Reads an exported model back and holds it against the Keras model.

    Args:
        written: Its format.
        folder: The export.
        pixels: float32 (n, height, width, channels) in [0, 1].
        expected: The Keras model's probabilities, float32 (n, classes).

    Raises:
        JobError: It can't be read, or does not predict the same.
    """
    try:
        found = written.predict(folder / written.path, pixels)
    except Exception as error:
        # Every runtime has errors of its own for a file that it can't read.
        why = str(error).partition("\n")[0]
        raise JobError(f"{written.path} can't be read back: {why}") from error
    if found.shape != expected.shape:
        raise JobError(f"{written.path} gives {found.shape} for {expected.shape}")
    comparison = Comparison(
        examples=len(expected),
        other_labels=int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
        largest_difference=float(abs(found - expected).max()),
    )
    if not comparison.is_same:
        raise JobError(f"{written.path} does not predict what the run does: {comparison}")
    return comparison


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raises InputError where something is in an export's way, or the folder above is missing."""
    if not target.parent.is_dir():
        raise InputError("--out", target, f"there is no folder {target.parent}; make it first")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise InputError("--out", target, "exists; name another, or replace it with --overwrite")
    try:
        known = set(json.loads((target / MANIFEST).read_bytes())["files"]) | {MANIFEST}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("--out", target, "is not an export; it is left alone") from None
    others = sorted(set(files_below(target)) - known)
    if others:
        raise InputError("--out", target, f"holds other files too ({others[0]}); it is left alone")


@contextlib.contextmanager
def made(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder that is filled beside its target and takes its name when the block ends.

    Nothing is left of it where the block fails.

    Raises:
        InputError: As `check_target`, or the folder above can't be written.
    """
    check_target(target, overwrite=overwrite)
    folder, aside = (target.with_name(f"{WRITING}{secrets.token_hex(8)}") for _ in range(2))
    try:
        folder.mkdir()
    except OSError as error:
        raise InputError("--out", target, f"can't be written ({text_of(error)})") from error
    try:
        yield folder
        for path in files_below(folder):
            with (folder / path).open("rb") as stream:
                os.fsync(stream.fileno())
        # Again: much can happen in the seconds that an export takes.
        check_target(target, overwrite=overwrite)
        if target.exists():
            target.rename(aside)
        try:
            folder.rename(target)
        except BaseException:
            if aside.exists() and not target.exists():
                aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, with `/` between parts, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def sha256_of_file(path: Path) -> str:
    """In hexadecimal; the file need not fit into memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
