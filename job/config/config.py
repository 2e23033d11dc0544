"""One run's settings: the single source of command line, `config.json`, sweep space and report.

`job/config/fields.py` says how its fields become options.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from job.config.fields import (
    SIDES,
    Limited,
    Settings,
    choice,
    digest,
    fields_of,
    glob,
    integer,
    interval,
    names,
    number,
    option,
    optional,
    picture_size,
    place,
    run_name,
    switch,
    text,
    worker_range,
)
from job.config.recipes import RECIPES
from job.models import MODELS
from job.models.source import model_name

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "muon")
SCHEDULES = ("constant", "warmup-cosine")
OUTPUTS = ("auto", "probabilities", "logits")
PRECISIONS = ("float32", "mixed_bfloat16")
DATASETS = ("mnist", "fashion-mnist", "cifar10", "own")
DEVICES = ("auto", "gpu", "cpu")
TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
DIGITS = ("mnist",)
# Other words for the same.
PRECISIONS_TOO = {"fp32": "float32", "bf16": "mixed_bfloat16", "bfloat16": "mixed_bfloat16"}
# What help shows together.
MODEL, DATA, TRAINING, AUGMENTATION = "Model", "Data", "Training", "Augmentation"
WHERE, KEEPING = "Processors, GPUs and workers", "Runs and their storage"
# What a run was trained with whose settings were kept before there was such a setting; and what the
# digest of a run leaves out. It never changes: a setting that is added enters it with the value
# that means "as before", whatever its default is.
AS_BEFORE: dict[str, Any] = {
    "model": "lenet5",
    "dataset": "mnist",
    "recipe": "quick",
    "epochs": 10,
    "batch_size": 128,
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "schedule": "warmup-cosine",
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "augment_shift": 0,
    "augment_flip": "none",
    "augment_rotate": 0.0,
    "augment_scale": 0.0,
    "augment_elastic": 0.0,
    "precision": "float32",
    "seed": 1,
    "limit_train": None,
    "patience": None,
    "best_by": "loss",
    "deterministic": True,
    "xla": False,
    "output": "auto",
    "model_sha256": None,
    "architecture_sha256": None,
    "start_from": None,
    "start_sha256": None,
    "freeze": None,
    "image_size": None,
    "validation": None,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """The settings of one training run. Raises InputError like every `Settings`."""

    model: str = option(
        "lenet5",
        Limited(model_name, model_name, tuple(MODELS), "FILE:FUNCTION"),
        "Model: a built-in one, or your own: FILE.py:FUNCTION or package.module:function, called "
        "with image_shape and classes.",
        group=MODEL,
    )
    dataset: str = option(
        "mnist",
        choice(*DATASETS),
        "Data set; own is the one at --data.",
        metavar="NAME",
        group=DATA,
    )
    data: str | None = option(
        None,
        optional(place),
        "Where the data set is: a folder of IDX files (also .gz), mnist.npz, CIFAR-10 as it is "
        "published or Parquet, or s3://BUCKET/PREFIX of Parquet; also pictures of your own: class "
        "folders, .npz, CSV, Hugging Face's Parquet, IDX. Without it, it is found or downloaded.",
        fixed=False,
        metavar="PLACE",
        group=DATA,
    )
    image_size: int | str | None = option(
        None,
        optional(picture_size(*SIDES)),
        "Bring pictures of your own to N × N pixels, or H × W; by default they stay as they are.",
        metavar="N|HxW",
        group=DATA,
    )
    validation: float | None = option(
        None,
        optional(number(above=0, maximum=0.9)),
        "Share of the training rows that validates, of each label's where pictures of your own "
        "are converted; a fifth by default. Those that come with a validation part keep it.",
        metavar="SHARE",
        group=DATA,
    )
    recipe: str = option(
        "quick",
        choice(*RECIPES),
        "Settings to start from: 'quick' (tuned for 2 CPU cores), 'notebook' (those of the "
        "original) or 'best' (the highest accuracy on digits). Any other flag overrides it, and "
        "another optimizer has its own usual rate. 'quick-1' and its like are those of before.",
        metavar="NAME",
        group=TRAINING,
    )
    epochs: int = option(10, integer(1, 100_000), "Passes over the training rows.", group=TRAINING)
    batch_size: int = option(
        128,
        integer(1, 60_000),
        "Examples per optimizer step, over all workers together.",
        group=TRAINING,
    )
    optimizer: str = option(
        "momentum",
        choice(*OPTIMIZERS, also={"adamw": "adam"}),
        "Optimizer; momentum is Nesterov's, 0.9. Weight decay is decoupled: adam with it is AdamW, "
        "and may be called so. muon is for kernels, biases have adam.",
        metavar="NAME",
        group=TRAINING,
    )
    learning_rate: float = option(
        0.1,
        number(above=0, maximum=100),
        "Learning rate; the peak of a schedule.",
        metavar="RATE",
        group=TRAINING,
    )
    schedule: str = option(
        "warmup-cosine",
        choice(*SCHEDULES),
        "Learning rate over time: 'constant', or 'warmup-cosine' "
        "(linear rise over the first tenth of the steps, then a cosine to 0).",
        metavar="NAME",
        group=TRAINING,
    )
    weight_decay: float = option(
        0.0,
        number(minimum=0, maximum=1),
        "Decoupled weight decay of the optimizer; 0 is off.",
        metavar="RATE",
        group=TRAINING,
    )
    label_smoothing: float = option(
        0.0,
        number(minimum=0, maximum=0.9),
        "Train towards labels mixed with this share of a uniform distribution; 0 is off. "
        "Validation and test losses are always against the plain labels.",
        metavar="SHARE",
        group=TRAINING,
    )
    augment_shift: int = option(
        0,
        integer(0, 8),
        "Move each training image by up to so many pixels, anew in each epoch; 0 is off.",
        group=AUGMENTATION,
    )
    augment_flip: str = option(
        "none",
        choice("none", "horizontal"),
        "Mirror half of the training images, anew in each epoch: none, or horizontal (which digits "
        "do not survive).",
        metavar="NAME",
        group=AUGMENTATION,
    )
    augment_rotate: float = option(
        0.0,
        number(minimum=0, maximum=180),
        "Turn each training image by up to so many degrees, anew in each epoch; 0 is off.",
        metavar="DEGREES",
        group=AUGMENTATION,
    )
    augment_scale: float = option(
        0.0,
        number(minimum=0, maximum=0.5),
        "Stretch or shrink each training image's height and width by up to this share, anew in "
        "each epoch; 0 is off.",
        metavar="SHARE",
        group=AUGMENTATION,
    )
    augment_elastic: float = option(
        0.0,
        number(minimum=0, maximum=8),
        "Bend each training image, anew in each epoch: its points are pulled away by so many "
        "pixels (standard deviation); 0 is off.",
        metavar="PIXELS",
        group=AUGMENTATION,
    )
    precision: str = option(
        "float32",
        choice(*PRECISIONS, also=PRECISIONS_TOO),
        "Arithmetic; bf16 is short for mixed_bfloat16.",
        metavar="NAME",
        group=MODEL,
    )
    seed: int = option(
        1, integer(0), "Seed of weights, example order, dropout and augmentation.", group=TRAINING
    )
    deterministic: bool = option(
        True,
        switch,
        "Let a GPU compute the same bits every time, which takes some of its speed; processors do "
        "in any case.",
        metavar=None,
        group=WHERE,
    )
    xla: bool | None = option(
        None,
        optional(switch),
        "Compile steps with XLA; by default as measured for the kind of device.",
        metavar=None,
        group=WHERE,
    )
    output: str = option(
        "auto",
        choice(*OUTPUTS),
        "What your own model gives: probabilities, logits, or auto, which tells them by the last "
        "layer's activation.",
        metavar="NAME",
        group=MODEL,
    )
    model_sha256: str | None = option(
        None,
        optional(digest),
        "SHA-256 of the file of your own model.",
        hidden=True,
        group=MODEL,
    )
    architecture_sha256: str | None = option(
        None,
        optional(digest),
        "SHA-256 of your own model's architecture.",
        hidden=True,
        group=MODEL,
    )
    start_from: str | None = option(
        None,
        optional(place),
        "Begin with the best weights of another run (a name, or a path), or of a .keras file: "
        "those of the same name and shape.",
        metavar="RUN",
        group=MODEL,
    )
    start_sha256: str | None = option(
        None,
        optional(digest),
        "SHA-256 of the weights to begin with.",
        hidden=True,
        group=MODEL,
    )
    freeze: str | None = option(
        None,
        optional(glob),
        "Leave weights as they are whose path matches: 'CONV*' or '*/kernel', say.",
        metavar="GLOB",
        group=MODEL,
    )
    lanes: int | None = option(
        None,
        optional(integer(1)),
        "Parts in which processors compute a worker's examples, noted when a run starts.",
        fixed=False,
        hidden=True,
        group=WHERE,
    )
    limit_train: int | None = option(
        None,
        optional(integer(1)),
        "Train on the first N training rows only (smoke runs).",
        group=DATA,
    )
    patience: int | None = option(
        None,
        optional(integer(1)),
        "Stop early after N epochs without a better one.",
        group=TRAINING,
    )
    best_by: str = option(
        "loss",
        choice("loss", "accuracy"),
        "Keep the weights with the best validation loss or accuracy. With label smoothing the "
        "loss, which is against the plain labels, is often best long before the accuracy is.",
        metavar="NAME",
        group=TRAINING,
    )
    workers: str = option(
        "1",
        worker_range,
        "Workers: a number, or an elastic range such as 2:8 that goes on with what is left. "
        "One runs in this process; more run on Ray.",
        fixed=False,
        metavar="N|MIN:MAX",
        group=WHERE,
    )
    cpus_per_worker: float | None = option(
        None,
        optional(number(above=0, maximum=4096)),
        "Processors of each worker on Ray; as many as fit by default.",
        fixed=False,
        group=WHERE,
    )
    gpus_per_worker: float | None = option(
        None,
        optional(
            number(minimum=0, maximum=1, why="a worker computes on one GPU, and --workers N uses N")
        ),
        "GPUs of each worker on Ray: 0, a share such as 0.5, or 1, which is the default where the "
        "cluster has any.",
        fixed=False,
        group=WHERE,
    )
    device: str = option(
        "auto",
        choice(*DEVICES),
        "What computes: gpu, cpu, or auto: a GPU where one is expected (Ray gave a share of one, "
        "or an NVIDIA device is there), else the processors.",
        fixed=False,
        metavar="NAME",
        group=WHERE,
    )
    address: str | None = option(
        None,
        optional(text),
        "Ray cluster: 'auto' (the running one), HOST:PORT, or 'local' (start one here for this "
        "run). Without it, 'auto' where one is running and more than one worker is wanted.",
        fixed=False,
        metavar="WHERE",
        group=WHERE,
    )
    profile: int | None = option(
        None,
        optional(integer(1, 10_000)),
        "Trace so many steps with TensorFlow's profiler, once functions are compiled, into the "
        "run's folder profile/.",
        fixed=False,
        group=WHERE,
    )
    tracker: str | None = option(
        None,
        names(*TRACKERS),
        "Follow it there, several with commas between: tensorboard (steps, in the run's folder), "
        "mlflow, wandb or trackio, by their own environment variables; none for nowhere.",
        fixed=False,
        metavar="NAMES",
        group=KEEPING,
    )
    max_failures: int = option(
        3,
        integer(0),
        "How often lost workers are replaced before the run fails.",
        fixed=False,
        group=WHERE,
    )
    hang_timeout: float = option(
        6.0,
        number(minimum=1, maximum=3600),
        "Seconds without a sign of life after which workers give up an attempt.",
        fixed=False,
        metavar="SECONDS",
        group=WHERE,
    )
    checkpoint_every: str = option(
        "30s",
        interval,
        "Checkpoint every N steps (500) or seconds (30s), and at each epoch's end.",
        fixed=False,
        metavar="N|Ns",
        group=KEEPING,
    )
    storage: str = option(
        "runs",
        place,
        "Where runs are kept: a folder, or s3://BUCKET/PREFIX.",
        fixed=False,
        metavar="PLACE",
        group=KEEPING,
    )
    storage_timeout: float = option(
        600.0,
        number(minimum=1, maximum=86400),
        "Seconds for which an object store may stay away before the run fails; training goes on "
        "meanwhile, checkpoints wait.",
        fixed=False,
        metavar="SECONDS",
        group=KEEPING,
    )
    name: str | None = option(
        None,
        optional(run_name),
        "Name of the run and its folder; a run of that name that was interrupted goes on. "
        "Without it a readable name is made.",
        fixed=False,
        metavar="NAME",
        group=KEEPING,
    )

    @classmethod
    def kept(cls, stored: Mapping[str, Any]) -> TrainConfig:
        """The settings of a run as its folder holds them, perhaps written by an earlier version."""
        return cls(**{**AS_BEFORE, **stored})

    @property
    def digest(self) -> str:
        """SHA-256 over the fixed settings: checkpoints of another job are never restored.

        What is as before is left out, so that a setting added later does not lock the runs made
        before it. What is not decided yet is left out as well.
        """
        fixed = self.fixed_dict().items()
        chosen = {k: v for k, v in fixed if v is not None and v != AS_BEFORE[k]}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in `tracker`."""
        return tuple(self.tracker.split(",")) if self.tracker else ()

    def hyperparameters(self) -> dict[str, Any]:
        """What runs are compared by: what is set of what decides the result, and the workers."""
        shown = {**self.fixed_dict(), "workers": self.workers}
        return {
            name: value
            for name, value in shown.items()
            if value is not None and not FIELDS[name].metadata["hidden"]
        }

    @property
    def worker_limits(self) -> tuple[int, int]:
        """Least and greatest number of workers."""
        least, _, most = self.workers.partition(":")
        return int(least), int(most or least)

    @property
    def checkpoint_steps(self) -> int | None:
        """Steps from one checkpoint to the next; None where `checkpoint_every` is in seconds."""
        return None if self.checkpoint_every.endswith("s") else int(self.checkpoint_every)

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds from one checkpoint to the next; None where `checkpoint_every` is in steps."""
        every = self.checkpoint_every
        return float(every[:-1]) if every.endswith("s") else None


FIELDS: dict[str, dataclasses.Field] = fields_of(TrainConfig)


def is_fixed(name: str) -> bool:
    """Whether a setting decides the result."""
    return FIELDS[name].metadata["fixed"]
