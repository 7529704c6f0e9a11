# The extended node: the stock node image with this package in it. `v6 node start --image NAME` runs it as it runs the
# stock image, because the extended node stands behind the same command, `vnode-local`.
#
#   docker tag <the stock node image of 4.15.2, as your registry calls it> vantage6-node:4.15.2
#   docker build -f docker/node.Dockerfile -t v6lf-node:4.15.2 .
#
# or name the stock image with --build-arg BASE_IMAGE=… and skip the tag. Run from the repository's root.
ARG BASE_IMAGE=vantage6-node:4.15.2
FROM ${BASE_IMAGE}

COPY pyproject.toml README.md LICENSE /v6lf/
COPY vantage6_largefile /v6lf/vantage6_largefile
COPY server_ext /v6lf/server_ext
COPY node_ext /v6lf/node_ext
COPY migrations /v6lf/migrations

# What the stock image has stays exactly as it is: its versions are constraints, and this package brings no
# dependencies of its own. In the stock image of 4.15.2 only cheroot, joserfc and pydantic are new (node and server
# are the same image, and the server needs the Azure packages already); the others are named in case a base lacks them.
RUN pip freeze --exclude-editable | grep '==' > /v6lf/constraints.txt \
 && pip install --no-cache-dir --constraint /v6lf/constraints.txt \
      'azure-identity>=1.17' 'azure-storage-blob>=12.23' 'cheroot>=10' 'flask>=2.3' 'joserfc>=1.0' 'pydantic>=2.7' \
      'websocket-client>=1.7' \
 && pip install --no-cache-dir --no-deps /v6lf \
 && rm -rf /v6lf

# `v6 node start` runs `vnode-local start …` in the image: the same command line, with the extended node behind it.
RUN command="$(command -v vnode-local)" \
 && printf '#!/bin/sh\nexec %s -m node_ext.main "$@"\n' "$(command -v python3)" > "$command" \
 && chmod 755 "$command" \
 && vnode-local --help > /dev/null

LABEL org.opencontainers.image.title="vantage6 node with large results" \
      org.opencontainers.image.licenses="Apache-2.0"
