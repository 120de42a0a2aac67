# A GPU job from what is in the repository: docs/install.md, "In a container".
#   docker build --tag vit_attn .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD/data:/vit_attn/data" -v "$PWD/runs:/vit_attn/runs" vit_attn fit -c cifar10
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY vit_attn vit_attn
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON}-slim
# torch.compile builds its kernels with a C compiler
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /tmp/constraints.txt
COPY --from=wheel /dist /tmp/dist
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt /tmp/dist/*.whl && rm -r /tmp/dist /tmp/constraints.txt
RUN useradd --create-home --uid 1000 trainer && mkdir --parents /vit_attn/data /vit_attn/runs && chown -R trainer /vit_attn
USER trainer
# also for --user: a name that torch asks for, and caches where any user may write
ENV HOME=/tmp USER=trainer MPLCONFIGDIR=/tmp/matplotlib TRITON_CACHE_DIR=/tmp/triton TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
WORKDIR /vit_attn
VOLUME ["/vit_attn/data", "/vit_attn/runs"]
ENTRYPOINT ["vit-attn"]
CMD ["--help"]
