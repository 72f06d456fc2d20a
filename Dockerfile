# docker build -t fbnetv3-zoo .
# docker run --rm --init -v "$PWD:/work" -v fbnetv3-cache:/cache --user "$(id -u):$(id -g)" fbnetv3-zoo list
#
# For a small CPU build of PyTorch: --build-arg TORCH_INDEX=ADDRESS (docs/install.md).
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/zoo/bin:$PATH
RUN python -m venv /opt/zoo
WORKDIR /source

# The dependencies: these layers are built again only if pyproject.toml changes. It says which versions will do.
# hadolint ignore=DL3013
RUN pip install torch torchvision ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY pyproject.toml .
RUN python -c 'import tomllib; \
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > requirements.txt \
    && pip install -r requirements.txt

COPY . .
RUN pip install --no-deps .

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.source=https://github.com/fbnetv3-zoo/fbnetv3-zoo \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /opt/zoo /opt/zoo
# The cache may be written by whatever user the container runs as.
RUN useradd --uid 1000 --create-home zoo && install -d -m 1777 /cache && install -d -o zoo -g zoo /work
ENV PATH=/opt/zoo/bin:$PATH FBNETV3_ZOO_CACHE=/cache MPLCONFIGDIR=/tmp/matplotlib
USER 1000
WORKDIR /work
ENTRYPOINT ["fbnetv3"]
CMD ["--help"]
