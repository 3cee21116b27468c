# Two stages: build on Debian, run on a slim one with the libraries alone, as a user of no rights.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
	gcc make pkgconf libc6-dev libevent-dev libevhtp-dev libcurl4-openssl-dev libhiredis-dev libcjson-dev libsqlite3-dev libmariadb-dev libssl-dev uthash-dev \
	&& rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Makefile ./
COPY common common
COPY server server
COPY test/wxfake test/wxfake
RUN make -j"$(nproc)" all && strip build/wxlogind build/wxfake

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
	libevent-2.1-7 libevent-openssl-2.1-7 libevhtp0 libcurl4 libhiredis0.14 libcjson1 libsqlite3-0 libmariadb3 libssl3 ca-certificates curl \
	&& rm -rf /var/lib/apt/lists/* \
	&& useradd --system --no-create-home --shell /usr/sbin/nologin wxlogind \
	&& install -d -o wxlogind -g wxlogind -m 0700 /var/lib/wxlogind
COPY --from=build /src/build/wxlogind /src/build/wxfake /usr/local/bin/
USER wxlogind
VOLUME /var/lib/wxlogind
EXPOSE 8080 8081 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=2s --start-period=2s --retries=5 CMD curl -fsS http://127.0.0.1:8081/readyz || exit 1
CMD ["wxlogind"]
