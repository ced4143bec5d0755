# syntax=docker/dockerfile:1

# The binary. Cache mounts keep the registry and the compiled dependencies between builds.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY client client
COPY proto proto
COPY resp resp
COPY src src
COPY tls tls
COPY bench/Cargo.toml bench/Cargo.toml
COPY bench/src bench/src
COPY bench/peers/Cargo.toml bench/peers/Cargo.toml
# Cargo wants to see every target that the manifests name; neither the tests nor the comparison with
# other servers is built here.
RUN mkdir -p tests/it bench/peers/src \
    && echo '//! Not built here.' | tee tests/it/main.rs bench/peers/src/main.rs
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --profile dist --locked --bin tidemill \
    && cp target/dist/tidemill /tidemill

# What runs: the C library, certificates, a user without rights, and the binary. No shell.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /tidemill /usr/local/bin/tidemill
ENV TIDEMILL_LISTEN=0.0.0.0:8080
EXPOSE 8080
USER nonroot:nonroot
STOPSIGNAL SIGTERM
# Whether the process lives. Whether it can do its work is `health --ready`: a relay must not be
# restarted because its Valkey is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/tidemill", "health"]
ENTRYPOINT ["/usr/local/bin/tidemill"]
CMD ["serve"]
