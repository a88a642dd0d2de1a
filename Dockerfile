# syntax=docker/dockerfile:1
# The meridian program in a small image: `docker build -t meridian .`
#
# The first build compiles RocksDB and DataFusion with all optimisations, which takes from half an
# hour to an hour; the caches below make later ones short. PROFILE=quick takes a third of that, and
# is good enough to try things.

FROM rust:1.95-bookworm AS build
# bindgen reads RocksDB's header through libclang.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
ARG PROFILE=release
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --profile "$PROFILE" -p cli \
    && cp "target/$PROFILE/meridian" /usr/local/bin/meridian \
    && strip /usr/local/bin/meridian

# What compose.yaml makes its certificates with; the image below has no openssl and needs none.
FROM debian:bookworm-slim AS certificates
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssl \
    && rm -rf /var/lib/apt/lists/*
COPY scripts/certificates.sh /usr/local/bin/certificates.sh
ENTRYPOINT ["/usr/local/bin/certificates.sh"]

FROM debian:bookworm-slim
# Nobody's user: it owns the data folder and nothing else.
RUN groupadd --system --gid 10001 meridian \
    && useradd --system --uid 10001 --gid meridian --no-create-home --home-dir /var/lib/meridian meridian \
    && install -d -o meridian -g meridian -m 0700 /var/lib/meridian
COPY --from=build /usr/local/bin/meridian /usr/local/bin/meridian
COPY deploy/healthcheck.sh /usr/local/bin/meridian-healthcheck
USER meridian
WORKDIR /var/lib/meridian
VOLUME /var/lib/meridian
# Defaults of a container; flags and the environment of `docker run` count before them. There is no
# --insecure here: without certificates a server does not listen beyond its container by accident.
ENV MERIDIAN_DATA=/var/lib/meridian/data \
    MERIDIAN_LISTEN=0.0.0.0:7100 \
    MERIDIAN_HTTP=0.0.0.0:8100
# 7100: nodes and clients. 8100: /metrics, /healthz, /readyz.
EXPOSE 7100 8100
# SIGTERM hands leaderships over first; `docker stop -t` must leave more time than --drain-seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["meridian-healthcheck"]
ENTRYPOINT ["meridian"]
CMD ["server"]
