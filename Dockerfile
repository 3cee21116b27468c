# wxlogind: built on Debian 12, run on a slim one with the libraries alone, by a user without rights, on a read-only root.
#
#   docker build -t wxlogind .
#   docker run --read-only -v users:/var/lib/wxlogind -p 8080:8080 -e WXLOGIND_APPID=wx… -e WXLOGIND_SECRET=… -e WXLOGIND_REDIS_URL=redis://… wxlogind
#
# Where the registry or Debian's mirror is slow or out of reach: --build-arg BASE_IMAGE=registry.example.com/library/debian:bookworm-slim
# --build-arg APT_MIRROR=http://mirror.example.com, which has /debian and /debian-security. apt checks signatures, so http will do.
# The fake WeChat is an image of its own: --target wxfake.

ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS debian
ARG APT_MIRROR
RUN [ -z "$APT_MIRROR" ] || find /etc/apt -name '*.list' -o -name '*.sources' | xargs sed -i -E "s#https?://[^/ ]+/debian#$APT_MIRROR/debian#"

FROM debian AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
	gcc make pkgconf libc6-dev libevent-dev libevhtp-dev libcurl4-openssl-dev libhiredis-dev libcjson-dev libexpat1-dev libsqlite3-dev libmariadb-dev libssl-dev uthash-dev
WORKDIR /src
COPY . .
RUN make -s -j"$(nproc)" all && strip build/wxlogind build/wxfake

FROM debian AS run
RUN apt-get update && apt-get install -y --no-install-recommends \
	ca-certificates curl libcjson1 libcurl4 libevent-2.1-7 libevent-openssl-2.1-7 libevhtp0 libexpat1 libhiredis0.14 libmariadb3 libsqlite3-0 libssl3 sqlite3 \
	&& rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
	&& useradd --uid 10001 --home-dir /var/lib/wxlogind --no-create-home --shell /usr/sbin/nologin wxlogind \
	&& install -d -o wxlogind -g wxlogind -m 700 /var/lib/wxlogind
COPY LICENSE /usr/share/doc/wxlogind/
USER wxlogind
STOPSIGNAL SIGTERM

FROM run AS wxfake
COPY --from=build /src/build/wxfake /usr/local/bin/
EXPOSE 9090
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s CMD ["curl", "-fsS", "--noproxy", "*", "-o", "/dev/null", "http://127.0.0.1:9090/fake/stats"]
CMD ["wxfake", "--listen", "0.0.0.0:9090"]

# The last one is what is built when no target is named.
FROM run AS wxlogind
COPY --from=build /src/build/wxlogind /usr/local/bin/
# /var/lib/wxlogind, the only place that is written to, wants a volume. It is not declared here: users lost in a nameless one are lost.
EXPOSE 8080 8081
# Alive, not ready: some engines start what is unhealthy anew, and that brings no Redis back. Compose asks /readyz.
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s CMD ["curl", "-fsS", "--noproxy", "*", "-o", "/dev/null", "http://127.0.0.1:8081/healthz"]
CMD ["wxlogind"]
