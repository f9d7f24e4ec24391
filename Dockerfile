# syntax=docker/dockerfile:1
# The image of Farebox with vLLM embedded:
#
#   docker build --build-arg BUILD=cuda -t farebox:0.1.0-cuda .
#   docker build --build-arg BUILD=cpu  -t farebox:0.1.0-cpu .
#
# It has been linted with hadolint but not built where it was written: no container runtime and no GPU were at hand.
# Build it, run `docker run --rm farebox:0.1.0-cpu catalog list`, and report what fails.
ARG PYTHON=3.12
# cuda or cpu: the extras of pyproject.toml
ARG BUILD=cuda

# ---------------------------------------------------------------------------------------------------------------------
# The virtual environment. Dependencies come first, so that a change of the code alone doesn't fetch them again.
FROM python:${PYTHON}-slim-bookworm AS build
ARG BUILD
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/farebox PIP_NO_CACHE_DIR=1
RUN pip install --no-cache-dir "uv>=0.8,<1" && uv venv /opt/farebox

# PyPI's torchvision, torchaudio and torchcodec are CUDA builds. Beside a CPU torch they break `import transformers`, and
# serving text needs none of them (scripts/install.py). The CPU build of torch is on PyTorch's own index. Versions and
# files are those of the lock.
COPY pyproject.toml README.md LICENSE ./
COPY requirements ./requirements
RUN --mount=type=cache,target=/root/.cache/uv \
    case "$BUILD" in cpu|cuda) ;; *) echo "BUILD must be cpu or cuda, not $BUILD" >&2; exit 1;; esac; \
    if [ "$BUILD" = cpu ]; then \
      printf '%s; python_version < "0"\n' torchvision torchaudio torchcodec > /tmp/overrides.txt; \
      set -- --override /tmp/overrides.txt --extra-index-url https://download.pytorch.org/whl/cpu \
        --index-strategy unsafe-best-match; \
    else \
      set --; \
    fi; \
    uv pip install --python /opt/farebox/bin/python "$@" --constraint "requirements/$BUILD.lock" \
      --build-constraint "requirements/$BUILD.lock" --requirement pyproject.toml --extra "$BUILD" --extra parquet

COPY gateway ./gateway
COPY engine ./engine
COPY pricing ./pricing
COPY storage ./storage
RUN uv pip install --python /opt/farebox/bin/python --no-deps --build-constraint "requirements/$BUILD.lock" .

# ---------------------------------------------------------------------------------------------------------------------
# What both builds need at run time: a C compiler (Triton and torch.compile build their launchers with it) and libnuma
# (vLLM's CPU kernels).
FROM python:${PYTHON}-slim-bookworm AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev libnuma1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 farebox \
    && useradd --uid 10001 --gid 10001 --home-dir /cache --no-create-home --shell /usr/sbin/nologin farebox \
    && install --directory --owner farebox --group farebox /cache /models /var/lib/farebox

FROM base AS cpu

# The CUDA libraries come with torch as wheels; the driver comes from the host through NVIDIA's container runtime. nvcc
# isn't here: kernels that FlashInfer would compile at run time need it, so its sampler is off. Where you want it, add
# the CUDA toolkit of the version that torch was built for.
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility VLLM_USE_FLASHINFER_SAMPLER=0

# ---------------------------------------------------------------------------------------------------------------------
# hadolint ignore=DL3006
FROM ${BUILD} AS final
COPY --from=build /opt/farebox /opt/farebox
ENV PATH=/opt/farebox/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/cache \
    HF_HOME=/models \
    FAREBOX_HOST=0.0.0.0 \
    FAREBOX_DATA_DIR=/var/lib/farebox
USER 10001:10001
WORKDIR /var/lib/farebox
VOLUME ["/var/lib/farebox", "/models"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --start-interval=5s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
# tini reaps what vLLM's processes leave behind and passes SIGTERM on.
ENTRYPOINT ["tini", "--", "farebox"]
CMD ["serve"]
