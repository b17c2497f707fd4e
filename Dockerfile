# syntax=docker/dockerfile:1
# agentflow from its locked requirements, without root. Torch comes in only where pip is shown a CPU build of it
# (PIP_EXTRA_INDEX_URL): with `engine: vllm` it is not needed.
FROM python:3.12.13-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/agentflow
COPY requirements/ requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/agentflow/bin/pip install --no-deps --require-hashes -r requirements/run.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    sh requirements/torch.sh /opt/agentflow/bin/python
COPY pyproject.toml README.md LICENSE ./
COPY migrations/ migrations/
COPY src/ src/
RUN /opt/agentflow/bin/pip install --no-deps --no-build-isolation .

FROM python:3.12.13-slim-bookworm
RUN useradd --uid 10001 --home-dir /var/lib/agentflow --create-home --shell /usr/sbin/nologin agentflow
COPY --from=build /opt/agentflow /opt/agentflow
ENV PATH=/opt/agentflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/var/lib/agentflow/hub \
    AGENTFLOW_CACHE=/var/lib/agentflow/cache \
    AGENTFLOW_HOST=0.0.0.0
USER agentflow
WORKDIR /var/lib/agentflow
# The example configuration, with an embedded Postgres beside it; mount your own over it or name it in AGENTFLOW_CONFIG.
# Beyond loopback the server refuses to start without AGENTFLOW_API_KEY.
RUN ["agentflow", "init"]
VOLUME /var/lib/agentflow
EXPOSE 8100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8100/health', timeout=4)"]
CMD ["agentflow", "serve"]
