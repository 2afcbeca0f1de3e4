# syntax=docker/dockerfile:1
# featreg in a container. At the top of the repository:
#
#   docker build --tag featreg .                               for GPUs
#   docker build --tag featreg:cpu --build-arg DEVICE=cpu .    without CUDA: 1.6 GB, not 5
#
# docs/deploy.md says how it is run. What it reads and writes lies in three volumes: /data (the
# datasets, may be read-only), /work (shards, runs, reports), /cache (fetched weights, kernels).

ARG PYTHON=3.12.12

# Everything but featreg: this layer stays as it is while featreg changes.
FROM python:${PYTHON}-slim-bookworm AS dependencies
ARG DEVICE=cuda
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PYTHON=/opt/featreg/bin/python
WORKDIR /source
RUN python -m venv --without-pip /opt/featreg
COPY constraints.txt ./
# From torch's own index comes torch alone; its dependencies follow with all others.
RUN case "$DEVICE" in \
        cuda) pip install --constraint constraints.txt torch ;; \
        cpu) pip install --constraint constraints.txt --no-deps --index-url "$TORCH_CPU_INDEX" torch ;; \
        *) echo "--build-arg DEVICE=$DEVICE: expected cuda or cpu" >&2; exit 1 ;; \
    esac
COPY pyproject.toml ./
# With the extra that `train export` needs for its default format.
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['onnx'], sep='\n')" \
        > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt \
    && find /opt/featreg -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) \
        -prune -exec rm -r {} +

FROM python:${PYTHON}-slim-bookworm AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY featreg featreg
COPY datasets datasets
COPY extract extract
COPY train train
# The build backend is pinned too: it comes from constraints.txt, not from pip's isolation.
RUN pip install --constraint constraints.txt setuptools \
    && pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

FROM python:${PYTHON}-slim-bookworm
COPY --from=dependencies /opt/featreg /opt/featreg
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip --python /opt/featreg/bin/python install --no-cache-dir --no-deps /wheel/*.whl \
    && useradd --uid 1000 --create-home featreg \
    && install --directory --mode 1777 /work /cache /data
# USER has a value for those who run as another user than 1000: libraries ask for a name.
ENV PATH=/opt/featreg/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    USER=featreg \
    FEATREG_WORK=/work \
    FEATREG_DATA=/data \
    XDG_CACHE_HOME=/cache \
    NUMBA_CACHE_DIR=/cache/numba \
    MPLCONFIGDIR=/cache/matplotlib
USER 1000:1000
WORKDIR /work
VOLUME ["/work", "/cache", "/data"]
# `docker stop` then is Ctrl-C: what is finished stays, and the same command goes on from there.
STOPSIGNAL SIGINT
CMD ["prep", "--help"]
