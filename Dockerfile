# One image for every process of ours: coordinators and migrations as it is, gateways with another entrypoint.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
# Without pip: it is of no use where the venv goes.
RUN python -m venv --without-pip /opt/venv && python -m venv /opt/builder
COPY requirements.lock requirements-dev.lock ./
# requirements.lock has what the reference system needs, too.
# The build backend's part of the other lock. Should it come to need another package, pip refuses and names it.
RUN awk '/^[^ ]/ {wanted = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/} wanted' \
    requirements-dev.lock > builder.lock
# Wheels only, since there is no compiler here.
RUN pip --python /opt/venv install --require-hashes --only-binary :all: -r requirements.lock \
    && pip --python /opt/builder install --require-hashes --only-binary :all: -r builder.lock
COPY pyproject.toml README.md LICENSE write_coordinator_pytest.py write_coordinator_start.py ./
COPY coordinator coordinator
RUN pip --python /opt/builder wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/venv install --no-deps --no-index dist/*.whl

FROM python:3.13-slim
# A new volume takes the owner of the folder that it is mounted on: /data is the sandbox provider's.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin coordinator \
    && install --directory --owner coordinator /data
COPY --from=build /opt/venv /opt/venv
# The reference system is no package: it is run from where it stands.
COPY shared /app/shared
COPY gateways /app/gateways
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONPATH=/app COORDINATOR_APP=gateways.app:APP
USER 10001
ENTRYPOINT ["coordinator"]
