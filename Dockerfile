# The cluster's image: Python, CUDA's runtime and the locked packages. The job's code is not in it: `ray job submit
# --working-dir .` brings it, so that a change of the code needs no new image.
#
#   docker build --tag bert-vits2:0.1.0 .
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${BASE} AS packages
# A release of Ubuntu keeps but the newest version of a package: the base's tag and the locks are the pins.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3.12 python3.12-venv \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.lock deploy/cloud.lock /locks/
# cuBLAS, cuDNN and NCCL come as torch's own packages, of the versions that it was built with.
RUN python3.12 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --requirement /locks/requirements.lock \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --requirement /locks/cloud.lock \
 && /opt/venv/bin/pip check

FROM ${BASE}
# ssh and rsync: the head sets the workers up. wget: KubeRay's probes.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates openssh-client python3.12 rsync wget \
 && rm -rf /var/lib/apt/lists/* \
 && userdel --remove ubuntu \
 && useradd --uid 1000 --create-home --shell /bin/bash ray
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/ray \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# 1000 is also the number of the cluster's SSH user, whose files `ray up` hands in.
USER 1000:1000
WORKDIR /home/ray
CMD ["bash"]
