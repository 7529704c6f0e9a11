# Azurite, Microsoft's emulator of Azure Blob Storage, for docker-compose.yml. For trying things out, never for data.
ARG BASE_IMAGE=node:20-slim
FROM ${BASE_IMAGE}
RUN npm install --global --no-audit --no-fund azurite@3.35.0
VOLUME /data
EXPOSE 10000
ENTRYPOINT ["azurite-blob", "--skipApiVersionCheck", "--disableTelemetry", "--disableProductStyleUrl", "--silent", \
            "--location", "/data", "--blobHost", "0.0.0.0", "--blobPort", "10000"]
