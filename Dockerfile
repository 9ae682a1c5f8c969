# efftasks on CPUs: predict, train, test, export. The steps are those of docs/get_started.md.
#   docker build -t efftasks .
#   docker run --rm -v "$PWD":/work -u "$(id -u):$(id -g)" efftasks predict model.onnx photos/ --out out
FROM python:3.11-slim-bookworm

# Libraries that the wheel of opencv-python links and does not contain.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*

# PyTorch without CUDA, which is a tenth of the size.
COPY . /opt/efftasks
WORKDIR /opt/efftasks
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu ".[train,export]" -c requirements/constraints.txt

# A user without rights; -u "$(id -u):$(id -g)" writes the files of the mounted folder as yours.
RUN useradd --create-home efftasks && mkdir -p /work && chown efftasks /work
USER efftasks
ENV HOME=/tmp

# Data, configs and results: mount a folder here.
VOLUME /work
WORKDIR /work
ENTRYPOINT ["efftasks"]
CMD ["--help"]
