"""The commands of README and docs/, and what becomes of each: run by a test, or why not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)

# These are run in one folder, in this order, the trainings with fewer rows and one epoch.
RUN = (
    "lenet --help",
    "lenet train --recipe notebook --model ffnn",
    "lenet train --name mine --epochs 20",
    "lenet evaluate mine",
    "lenet predict mine photo.jpg",
    "lenet export mine",
    "lenet runs",
)
# Of the others, the first pattern that one begins with: the test that does what it does, with names
# and places of its own, or why it is not run.
OTHERS = {
    r"(export )?LENET_|lenet train --config|lenet (evaluate|predict) last": (
        "tests/test_config/test_command_line.py"
    ),
    r"(\w+=\S+ )?lenet (train|sweep) .*--tracker": "tests/test_trackers/test_trackers.py",
    r"lenet train .*--(on-end|profile)": "tests/test_runs/test_on_end.py",
    r"lenet runs (--sort|small)": "tests/test_runs/test_listing.py",
    r"make test": "not run: it is the suite",
    r"source .venv/bin/activate": "not run: Python's own",
    r"make bench": "not run: it takes hours; tests/test_project/test_bench.py runs parts of it",
    r"make venv": "not run: it installs what these tests run in",
    r"make train": "not run: it takes minutes; it is `lenet train --recipe quick`",
    r"lenet train --name (mine|long)\b": "tests/test_runs/test_train.py",
    r"lenet (train|models) (--model )?(nets|after).py:": "tests/test_project/test_docs.py",
    r"lenet train .*--start-from": "tests/test_runs/test_start_from.py",
    r"lenet train --dataset cifar10": "tests/test_data/test_cifar.py",
    r"lenet train --dataset fashion-mnist .*--augment": "tests/test_engine/test_augment.py",
    r"lenet export": "tests/test_results/test_export.py",
    r"lenet compare": "tests/test_results/test_compare.py",
    r"lenet baselines": "tests/test_baselines/test_baselines.py",
    r"lenet train --workers": "tests/test_cluster/test_workers.py",
    r"lenet train --recipe quick": "tests/test_engine/test_stand_in_gpu.py",
    r"lenet train --recipe notebook --no-(xla|deterministic)": "tests/test_engine/test_engine.py",
    r"lenet (train|runs|evaluate|predict) .*s3://BUCKET": "tests/test_storage/test_s3_runs.py",
    r"lenet predict .*--out": "tests/test_results/test_predict.py",
    r"lenet (data stage|train) .*\b(pets|words)\b": "tests/test_data/test_convert.py",
    r"lenet (data|train --data) .*": "tests/test_data/test_parquet.py",
    r"lenet (train|evaluate|predict) .*strokes": "tests/test_data/test_parquet.py",
    r"lenet runs long": "tests/test_runs/test_listing.py",
    r"lenet sweep .*next-space": "tests/test_tuning/test_next.py",
    r"lenet sweep": "tests/test_tuning/test_sweep.py",
    r"pip install optuna-dashboard": "tests/test_tuning/test_journal.py",
    r"lenet report .*--serve": "tests/test_tuning/test_serve.py",
    r"lenet report": "tests/test_tuning/test_report.py",
    r"lenet doctor": "tests/test_cluster/test_doctor.py",
    r"ray (up|submit|exec|down) cluster/onprem.yaml": "tests/lab/test_e2e.py",
    r"ray exec ray_cluster.yaml '(ray status|tail )": "not run: it shows what a cloud refused",
    r"ray (up|submit|exec|down) ray_cluster.yaml": "tests/lab/test_e2e_aws.py",
    r"\(umask 077; ray get-auth-token|chmod 600": "tests/lab/launched.py",
    r"aws |for role in": "not run: an AWS account is needed; make e2e compares cluster/iam with "
    "what is asked of EC2",
    r"python -m benchmarks.scaling.scaling predict": "tests/test_project/test_scaling.py",
    r"docker ": "not run: a docker engine is needed; `make image` runs the Dockerfile's steps",
    r"(\w+=\S+ )*benchmarks/gpu/gpu.sh": "tests/test_project/test_gpu_benchmark.py",
    r"kubectl ": "not run: Kubernetes is needed; test_cluster_file.py checks the file",
}


class Command(NamedTuple):
    """A command of a page, without prompt and comment."""

    page: str
    text: str


def commands() -> Iterator[Command]:
    """Every command in a block of a console."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            # A line that is indented belongs to the one before it.
            for line in re.findall(r"^\$ (.*(?:\n {2,}.*)*)", block, re.MULTILINE):
                yield Command(page.name, without_comment(line).removeprefix(".venv/bin/"))


def without_comment(line: str) -> str:
    """A line of a shell without its comment; `#` within quotes or a word begins none."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    words = list(lexer)
    comment = next((i for i, word in enumerate(words) if word.startswith("#")), None)
    if comment is None:
        return line.strip()
    return line[: line.index(" " + words[comment])].strip()


def becomes(text: str) -> str | None:
    """What becomes of a command; None where nobody said."""
    if text in RUN:
        return "run"
    return next((how for start, how in OTHERS.items() if re.match(start, text)), None)
