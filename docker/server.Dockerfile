# The extended server: the stock server image with this package in it. `v6 server start --image NAME` runs it as it
# runs the stock image, because the extended application stands in the file that uWSGI is told to load.
#
#   docker tag <the stock server image of 4.15.2, as your registry calls it> vantage6-server:4.15.2
#   docker build -f docker/server.Dockerfile -t v6lf-server:4.15.2 .
#
# or name the stock image with --build-arg BASE_IMAGE=… and skip the tag. Run from the repository's root.
ARG BASE_IMAGE=vantage6-server:4.15.2
FROM ${BASE_IMAGE}

COPY pyproject.toml README.md LICENSE /v6lf/
COPY vantage6_largefile /v6lf/vantage6_largefile
COPY server_ext /v6lf/server_ext
COPY node_ext /v6lf/node_ext
COPY migrations /v6lf/migrations

# What the stock image has stays exactly as it is: its versions are constraints, and this package brings no
# dependencies of its own. New beside the stock image of 4.15.2: alembic, joserfc, pydantic.
RUN pip freeze --exclude-editable | grep '==' > /v6lf/constraints.txt \
 && pip install --no-cache-dir --constraint /v6lf/constraints.txt \
      'alembic>=1.13' 'azure-identity>=1.17' 'azure-storage-blob>=12.23' 'joserfc>=1.0' 'psycopg2-binary>=2.9' \
      'pydantic>=2.7' \
 && pip install --no-cache-dir --no-deps /v6lf \
 && rm -rf /v6lf

# `v6 server start` hard-codes this path for uWSGI. The file keeps its promise: argv[1] is the configuration, `app` the
# application.
RUN mkdir -p /vantage6/vantage6-server/vantage6/server \
 && printf '%s\n' '"""The extended server, in the place where uWSGI looks for the stock one."""' \
      'from server_ext.wsgi import app  # noqa: F401' > /vantage6/vantage6-server/vantage6/server/wsgi.py \
 && v6-largefile --version

LABEL org.opencontainers.image.title="vantage6 server with large results" \
      org.opencontainers.image.licenses="Apache-2.0"
