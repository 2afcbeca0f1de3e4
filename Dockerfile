# featreg in a container, for GPU machines:
#
#   docker build -t featreg .
#   docker run --gpus all -v $PWD/featreg-work:/featreg -v /data:/data:ro featreg \
#       prep extract --dataset mtat --root /data/mtat --features vggish,openl3
#
# A smaller image without CUDA: --build-arg TORCH_INDEX=ADDRESS, the index of torch's CPU wheels.
# /featreg holds all that featreg writes, fetched weights among it.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=
WORKDIR /source
RUN python -m venv /opt/featreg
ENV PATH=/opt/featreg/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY datasets datasets
COPY extract extract
COPY train train
RUN pip install --constraint constraints.txt .

FROM python:${PYTHON}-slim
COPY --from=build /opt/featreg /opt/featreg
RUN useradd --create-home --uid 1000 featreg && install --directory --owner featreg /featreg
USER featreg
WORKDIR /featreg
ENV PATH=/opt/featreg/bin:$PATH FEATREG_WORK=/featreg \
    XDG_CACHE_HOME=/featreg/.cache NUMBA_CACHE_DIR=/featreg/.cache/numba
VOLUME /featreg
CMD ["prep", "--help"]
