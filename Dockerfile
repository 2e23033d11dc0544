# The project with the Python (3.11) and Ray of its lock. For processors, or with NVIDIA's libraries,
# which need a node's driver and container runtime:
#   docker build -t lenet-on-ray .
#   docker build -t lenet-on-ray:gpu --build-arg LOCK=requirements-gpu.lock .
#   docker run --gpus all lenet-on-ray:gpu lenet doctor
# Where GPUs are given with `--runtime=nvidia` instead, the container needs NVIDIA_VISIBLE_DEVICES and
# NVIDIA_DRIVER_CAPABILITIES=compute,utility (Ray finds GPUs through NVML, a utility). They are not set
# here: pods that asked for no GPU would see all of them.

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS build

ARG LOCK=requirements-cluster.lock
ENV PATH=/opt/lenet/venv/bin:$PATH
WORKDIR /opt/lenet/src
# Before the code: an edit does not install everything again.
COPY requirements-cluster.lock requirements-gpu.lock ./
RUN if [ "$LOCK" = requirements-gpu.lock ] && [ "$(uname -m)" != x86_64 ]; then \
        echo "TensorFlow's wheel for $(uname -m) is built without CUDA: build without LOCK" >&2; \
        exit 1; \
    fi \
    && python3 -m venv /opt/lenet/venv \
    && pip install --no-cache-dir --disable-pip-version-check --require-hashes -r "$LOCK"
COPY pyproject.toml README.md LICENSE ./
COPY job job
COPY cluster cluster
COPY tuning tuning
RUN pip install --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps --editable . \
    && python3 -m compileall -q job cluster tuning


FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

# KubeRay asks for a pod's health with wget.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 lenet
COPY --from=build /opt/lenet /opt/lenet
ENV PATH=/opt/lenet/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /home/lenet
# Of Ray's node, where the container runs one; a run in one process has none to ask.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["sh", "-c", "! grep -qsx raylet /proc/[0-9]*/comm || wget -q -T 5 -O /dev/null http://127.0.0.1:52365/api/local_raylet_healthz"]
CMD ["lenet", "--help"]
