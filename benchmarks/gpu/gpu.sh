#!/usr/bin/env bash
# Measures LeNet5 on a machine with one GPU and without a network, within ten minutes.
#
#   benchmarks/gpu/gpu.sh pack FOLDER            where there is a network: wheels and MNIST, in pieces
#   PIECES=FOLDER benchmarks/gpu/gpu.sh run      on the GPU's machine: joins, installs, measures
#   benchmarks/gpu/gpu.sh run --short            the short form, with .venv, also without a GPU
#
# What follows `run` goes to benchmarks/gpu/gpu.py. Pieces are of at most 60 MiB, so they can be carried a
# few at a time. WHEELS and DATA name folders of wheels and of MNIST instead. PYTHON has to be of the
# same version, 3.11 to 3.13, on both machines.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/build/gpu
lock=$root/requirements-gpu.lock
python=${PYTHON:-python3}
budget=${BUDGET:-600}
piece_bytes=${PIECE_BYTES:-$((60 * 1024 * 1024))}
# Of NVIDIA's wheels those that one GPU has no use for, 0.7 GB: sums over several GPUs, a profiler,
# random numbers. TensorFlow's loader asks for no more than the others (tests/kit/gpu_libraries.py).
left_out='nvidia-(nccl|cuda-cupti|curand)-cu12'

fail() {
  echo "gpu.sh: $*" >&2
  exit 1
}

# The lock without what is left out, as a file.
needed() {
  mkdir -p "$work"
  awk -v left_out="^$left_out==" '/^[^ ]/ { skipped = $0 ~ left_out } !skipped' "$lock" \
    > "$work/needed.lock"
  echo "$work/needed.lock"
}

pack() {
  local folder=$1 scratch=$work/pack
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "wheels for Linux on x86_64 are packed there only"
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' ||
    fail "$python is not Python 3.11, 3.12 or 3.13; name one with PYTHON"
  [ -x "$root/.venv/bin/python" ] || fail "there is no $root/.venv, which gets MNIST; make venv makes it"
  rm -rf "$scratch" && mkdir -p "$scratch/whole"
  # The lock names all there is, and pip chooses for the Python that runs it.
  "$python" -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
    --only-binary :all: --dest "$scratch/whole/wheels" -r "$(needed)"
  PYTHONPATH=$root "$root/.venv/bin/python" -m tuning.cli data stage "$scratch/whole/data" mnist
  cut_up "$scratch/whole" "$folder"
  rm -rf "$scratch"
}

# Cuts what a folder holds into the pieces of a new one; the list comes last, so that pieces without
# it are none.
cut_up() {
  local source=$1 folder=$2
  mkdir -p "$folder"
  [ -z "$(ls -A "$folder")" ] || fail "$folder is not empty; name a new folder"
  tar -C "$source" -c . | split --bytes="$piece_bytes" --numeric-suffixes --suffix-length=3 - \
    "$folder/piece-"
  (cd "$folder" && sha256sum piece-* > SHA256SUMS.new && mv SHA256SUMS.new SHA256SUMS)
  echo "$folder: $(wc -l < "$folder/SHA256SUMS") pieces, $(du -sh "$folder" | cut -f1)" >&2
}

# Puts verified pieces together again; nothing appears at the place unless all of them are right.
put_together() {
  local folder=$1 place=$2 bad pieces
  [ -f "$folder/SHA256SUMS" ] || fail "$folder/SHA256SUMS is missing; carry it along with the pieces"
  grep -qvE '^[0-9a-f]{64}  piece-[0-9]{3}$' "$folder/SHA256SUMS" &&
    fail "$folder/SHA256SUMS is no list of pieces; carry it again"
  bad=$(cd "$folder" && sha256sum --check --quiet SHA256SUMS 2> /dev/null) || true
  [ -z "$bad" ] || fail "$folder/${bad%%:*} is missing or spoilt; carry it again"
  mapfile -t pieces < <(cut -c 67- "$folder/SHA256SUMS")
  [ "${#pieces[@]}" -gt 0 ] || fail "$folder/SHA256SUMS is empty; carry it again"
  rm -rf "$place" "$place.part" && mkdir -p "$place.part"
  (cd "$folder" && cat "${pieces[@]}") | tar -C "$place.part" -x
  cp "$folder/SHA256SUMS" "$place.part/"
  mv "$place.part" "$place"
}

install_wheels() {
  local wheels=$1 venv=$work/venv wanted
  wanted=$(cat "$(needed)" <("$python" --version) | sha256sum)
  if [ "$(cat "$venv/.installed" 2> /dev/null)" = "$wanted" ]; then return; fi
  # Debian keeps a part of venv in a package of its own; the pip outside can install into it too.
  "$python" -m venv --clear --without-pip "$venv"
  "$python" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check \
    --no-index --find-links "$wheels" --require-hashes --no-deps --no-compile -r "$(needed)"
  echo "$wanted" > "$venv/.installed"
}

run() {
  local short=false argument chosen=$root/.venv/bin/python
  for argument in "$@"; do
    case $argument in --short | --table | --help | -h) short=true ;; esac
  done
  $short || nvidia-smi --list-gpus > /dev/null 2>&1 ||
    fail "nvidia-smi finds no GPU; --short runs without one"
  if [ -n "${PIECES:-}" ]; then
    local place=$work/joined
    cmp --silent "$PIECES/SHA256SUMS" "$place/SHA256SUMS" || put_together "$PIECES" "$place"
    WHEELS=${WHEELS:-$place/wheels} DATA=${DATA:-$place/data/mnist}
  fi
  if [ -n "${WHEELS:-}" ]; then
    install_wheels "$WHEELS"
    chosen=$work/venv/bin/python
  fi
  [ -x "$chosen" ] || fail "there is no $chosen; make venv makes it, or name PIECES or WHEELS"
  export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
  # Joining and installing are of the ten minutes too.
  exec "$chosen" -m benchmarks.gpu.gpu --seconds $((budget - SECONDS)) \
    ${DATA:+--data "$DATA"} "$@"
}

case ${1:-} in
  pack) [ $# = 2 ] || fail "name a new folder: benchmarks/gpu/gpu.sh pack FOLDER" ;;
  needed) [ $# = 1 ] || fail "needed takes nothing" ;;
  cut_up | put_together) [ $# = 3 ] || fail "$1 takes two folders, from and to" ;;
  run) ;;
  *) fail "say pack FOLDER or run; the head of $0 says more" ;;
esac
"$@"
