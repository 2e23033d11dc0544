#!/usr/bin/env bash
# Makes a machine a node of a cluster; `ray up` has every node run it once the files are there.
#
#   bash cluster/install.sh [NAME=VALUE ...]     # NAME=VALUE: the environment of Ray and its jobs
#
# Everything comes from a hash-pinned lock. The project is installed in place, so that a file that is
# synced later is the one that runs. Where nothing has changed, nothing is done.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$HOME/lenet-venv
settings=$HOME/.lenet-env

# The wheels of CUDA are about 2.5 GB: only where there is a GPU. GPU=0 before the command leaves
# them, GPU=1 takes them.
lock=requirements-cluster.lock
if [ -z "${GPU:-}" ] && nvidia-smi --list-gpus > /dev/null 2>&1; then GPU=1; fi
if [ "${GPU:-0}" != 0 ]; then
  lock=requirements-gpu.lock
  if [ "$(uname -m)" != x86_64 ]; then
    echo "cluster/install.sh: TensorFlow's wheel for $(uname -m) is built without CUDA;" \
      "GPU=0 before this command installs for processors" >&2
    exit 1
  fi
fi

{
  # shellcheck disable=SC2016
  printf 'export PATH=%q:"$PATH"\n' "$venv/bin"
  # Commands on a node find the token that Ray was started with.
  printf 'export RAY_AUTH_MODE=token\n'
  # Compiled files beside the sources would look like an edit to the autoscaler, which syncs edits to
  # the workers and then starts Ray anew there (unless `ray up --no-restart` came last).
  printf 'export PYTHONDONTWRITEBYTECODE=1\n'
  # What `ray job stop` grants a run for its last checkpoint, in seconds; Ray's default is 3.
  printf 'export RAY_JOB_STOP_WAIT_TIME_S=60\n'
  for setting in "$@"; do printf 'export %s=%q\n' "${setting%%=*}" "${setting#*=}"; done
} > "$settings"
# Ray runs every command in a login shell that reads .bashrc. The first line, because some files
# return early.
touch "$HOME/.bashrc"
if ! grep -qxF ". $settings" "$HOME/.bashrc"; then
  { echo ". $settings"; cat "$HOME/.bashrc"; } > "$HOME/.bashrc.lenet"
  mv "$HOME/.bashrc.lenet" "$HOME/.bashrc"
fi

wanted=$(cat "$project/$lock" "$project/pyproject.toml" | sha256sum)
if [ "$(cat "$venv/.installed" 2> /dev/null)" = "$wanted" ]; then exit 0; fi

python=$(command -v python3.11 || command -v python3.12 || command -v python3.13) || {
  echo "cluster/install.sh: Python 3.11, 3.12 or 3.13 is needed" >&2
  exit 1
}
# Debian keeps a part of venv in a package of its own.
if ! "$python" -c 'import ensurepip' 2> /dev/null; then
  sudo apt-get -o DPkg::Lock::Timeout=300 update -q
  sudo apt-get -o DPkg::Lock::Timeout=300 install -qy "$(basename "$python")-venv"
fi
"$python" -m venv --clear "$venv"
PIP_NO_CACHE_DIR=1 "$venv/bin/python" "$project/cluster/packages.py" "$project/$lock"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
  --editable "$project"
echo "$wanted" > "$venv/.installed"
