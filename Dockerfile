# A server in a container, with the models of the zoo. Two targets:
#
#   docker build --target cpu -t outrider:cpu .
#   docker build --target cuda -t outrider:cuda .
#
# It runs without root and with a read-only file system; /cache holds compiled kernels and downloaded models:
#
#   docker run --rm -p 8000:8000 --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -v outrider-cache:/cache outrider:cpu
#   docker run --rm -p 8000:8000 --gpus all --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -v outrider-cache:/cache -v MODELS:/models:ro outrider:cuda serve /models/NAME --host 0.0.0.0

FROM python:3.12-slim AS wheels
RUN pip install --no-cache-dir build==1.6.1
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY zoo zoo
RUN python -m build --wheel --outdir /wheels . && python -m build --wheel --outdir /wheels zoo

FROM python:3.12-slim AS base
ENV HF_HOME=/cache/hub TRITON_CACHE_DIR=/cache/triton XDG_CACHE_HOME=/cache HOME=/cache \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --home-dir /cache --shell /usr/sbin/nologin outrider \
    && mkdir /cache && chown 10001:10001 /cache
VOLUME /cache
COPY constraints.txt /tmp/constraints.txt
# `serve` answers here as soon as it is ready, with a key or without
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
EXPOSE 8000

# TORCH_INDEX_URL: the package index of PyTorch's builds for CPUs; the default index has builds for CUDA, which run on a
# CPU, too, and take some gigabytes more
FROM base AS cpu
ARG TORCH_INDEX_URL=
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt ${TORCH_INDEX_URL:+--index-url $TORCH_INDEX_URL} torch
COPY --from=wheels /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /tmp/wheels/outrider-*.whl)[gguf,server]" \
    /tmp/wheels/outrider_zoo-*.whl
USER 10001:10001
ENTRYPOINT ["outrider"]
CMD ["serve", "--host", "0.0.0.0"]

# PyTorch's wheels bring CUDA's libraries; Triton needs a C compiler for the code that launches its kernels
FROM base AS cuda
# the distribution's own versions: older ones leave its mirrors
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt torch
COPY --from=wheels /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /tmp/wheels/outrider-*.whl)[gguf,server]" \
    /tmp/wheels/outrider_zoo-*.whl
USER 10001:10001
ENTRYPOINT ["outrider"]
CMD ["serve", "--host", "0.0.0.0"]
