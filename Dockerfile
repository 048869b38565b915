# syntax=docker/dockerfile:1
#
# docker build -t mcp-edge .
# docker run -p 8443:8443 -v edge-certs:/certs -e MCP_SELF_SIGNED=1 -e MCP_NAME=mcp.example.com \
#     -e MCP_AUTH_TOKEN="$(openssl rand -hex 32)" mcp-edge
#
# Set port and certificates by variables rather than options: the health check reads the same ones.
# A directory bound to /certs must be writable by user 65532; a named volume is.
#
# A stdio server behind the edge runs inside this image, which therefore needs what the server needs.
# BASE chooses the final image; it must have glibc 2.36 or newer (Debian 12):
#   docker build -t mcp-edge:node   --build-arg BASE=node:22-bookworm-slim .
#   docker build -t mcp-edge:python --build-arg BASE=python:3.13-slim-bookworm .
#   docker run … mcp-edge:node -- npx -y @modelcontextprotocol/server-everything

ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM rust:1.95-slim-bookworm AS build
# The image brings the C compiler that aws-lc-rs needs; jemalloc is built with make, and the bill of
# materials with Python.
RUN apt-get update && apt-get install -y --no-install-recommends make python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY .ci/sbom .ci/sbom
# The same bytes wherever it is built: no path goes in. These are the flags of tests/reproducible.
ENV RUSTFLAGS="--remap-path-prefix=/src/target=/target --remap-path-prefix=/usr/local/cargo=/cargo" \
    CFLAGS="-ffile-prefix-map=/src/target=/target -ffile-prefix-map=/usr/local/cargo=/cargo"
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin mcp-edge \
    && mkdir -p /out/certs \
    && cp target/release/mcp-edge /out/ \
    && .ci/sbom "$(rustc -vV | sed -n 's/^host: //p')" >/out/mcp-edge.cdx.json

FROM ${BASE}
COPY --from=build /out/mcp-edge /usr/local/bin/mcp-edge
# What is in it: CycloneDX 1.5.
COPY --from=build /out/mcp-edge.cdx.json /usr/local/share/mcp-edge/mcp-edge.cdx.json
# 65532 is `nonroot` of the distroless images; others need no entry for it.
COPY --from=build --chown=65532:65532 /out/certs /certs
USER 65532:65532
# Caches of npx and uvx need a home that may be written.
ENV HOME=/tmp \
    MCP_HOST=0.0.0.0 \
    MCP_CERTS_DIR=/certs
VOLUME ["/certs"]
EXPOSE 8443
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["mcp-edge", "health"]
ENTRYPOINT ["/usr/local/bin/mcp-edge"]
