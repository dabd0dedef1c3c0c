# posekernels on a CPU. Nobody has built this image yet: no container runs where the project is made.
#
#   docker build -t posekernels .
#   docker run --rm -v "$PWD:/data" posekernels lift clip.mp4 -o clip.html
#
# pip's own PyTorch may bring gigabytes of CUDA. PyTorch's page of installation names the index of its CPU build:
#   docker build --build-arg TORCH="torch --index-url ..." -t posekernels .
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
ENV POSEKERNELS_BUILD=require
RUN pip wheel --no-deps --wheel-dir /wheels /src

FROM python:3.13-slim
COPY --from=build /wheels /wheels
ARG TORCH=torch
RUN pip install --no-cache-dir $TORCH \
    && pip install --no-cache-dir "$(echo /wheels/*.whl)[video,c3d,onnx]" \
    && posekernels info
WORKDIR /data
ENTRYPOINT ["posekernels"]
