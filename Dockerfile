# segmed in a container. CPU: docker build -t segmed .
# GPU: docker build -t segmed-gpu --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 --build-arg TORCH_INDEX=https://pypi.org/simple .
# Run: docker run --shm-size 4g --user "$(id -u):$(id -g)" -v "$PWD":/workspace segmed train   (GPU: --gpus all)
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# Each base has its own versions, so none is pinned.
# hadolint ignore=DL3008
RUN command -v python3 > /dev/null || (apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

COPY . /opt/segmed
WORKDIR /opt/segmed
RUN pip install --no-cache-dir torch==2.13.0 --index-url ${TORCH_INDEX} \
    && pip install --no-cache-dir -c constraints.txt -e .

RUN useradd --uid 10001 segmed && mkdir -p /workspace && chown segmed /workspace
USER 10001
ENV HOME=/tmp
WORKDIR /workspace
ENTRYPOINT ["segmed"]
CMD ["--help"]
