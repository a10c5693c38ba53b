# What a machine of a cluster needs: Ray, the packages of constraints.txt and the compiled rasterisers.
#   docker build -t REGISTRY/ap3d:1 .                                         CPU and GPU
#   docker build -t REGISTRY/ap3d:1-cpu --build-arg EXTRAS=ray,s3,gcs --build-arg BASE=rayproject/ray:2.60.0-py311-cpu .
# The code travels with each job (--working-dir) and comes before the copy in the image.
ARG BASE=rayproject/ray:2.60.0-py311-gpu
FROM ${BASE}

USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
USER ray

WORKDIR /home/ray/ap3d
COPY --chown=ray . .
ARG EXTRAS=ray,gpu,s3,gcs
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

# Nothing is reported to Ray's makers unless you set this to 1; workers have one thread of their own for every library.
ENV RAY_USAGE_STATS_ENABLED=0 \
    OMP_NUM_THREADS=1 \
    HF_HUB_OFFLINE=1
