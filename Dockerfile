# syntax=docker/dockerfile:1
# For amd64 and arm64, each built on a machine of its kind, or emulated: the libraries of C that are built with it make
# a cross compiler of each more trouble than it saves.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag tidemill --push .

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
    && echo '//! Not built here.' > tests/it/main.rs \
    && echo '//! Not built here.' > bench/peers/src/main.rs
# What was built for one kind of machine is nothing to another.
ARG TARGETPLATFORM
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-${TARGETPLATFORM},target=/build/target \
    cargo build --profile dist --locked --bin tidemill \
    && cp target/dist/tidemill /tidemill

# What runs: the C library, certificates, a user without rights, and the binary. No shell.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /tidemill /usr/local/bin/tidemill
ENV TIDEMILL_LISTEN=0.0.0.0:8080
EXPOSE 8080
# The user `nonroot`, by number: whoever runs the image can see that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
# Whether the process lives. Whether it can do its work is `health --ready`: a relay must not be
# restarted because its Valkey is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/tidemill", "health"]
ENTRYPOINT ["/usr/local/bin/tidemill"]
CMD ["serve"]
