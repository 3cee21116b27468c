"""Redis over TLS: what is verified, and that nothing is sent to whoever does not pass."""
import asyncio
import sys

import pytest

from conftest import ROOT, poll

sys.path.insert(0, str(ROOT / "test" / "drill"))
from proxy import Proxy  # noqa: E402
from redis_groups import Cluster, SentinelGroup  # noqa: E402


class OneByOne(Proxy):
    """Hands on each byte by itself, both ways."""

    async def send(self, line, writer):
        while True:
            _, piece = await line.get()
            for i in range(len(piece)):
                writer.write(piece[i:i + 1])
                await writer.drain()
                if i % 64 == 0:
                    await asyncio.sleep(0)


def tls_redis(stack, tls, *args):
    from conftest import free_port
    port = free_port()
    redis = stack.redis(
        "--tls-port", port, "--tls-cert-file", tls.cert, "--tls-key-file", tls.key,
        "--tls-ca-cert-file", tls.ca, "--tls-auth-clients", "no", *args,
    )
    redis.tls_port = port
    return redis


def commands(redis, *names):
    stats = redis.cli("INFO", "commandstats")
    return [n for n in names if f"cmdstat_{n}:" in stats]


def test_works_and_answers_from_memory(stack, wxfake):
    tls = stack.tls()
    redis = tls_redis(stack, tls)
    server = stack.server(
        None, wxfake, redis__url=f"rediss://127.0.0.1:{redis.tls_port}/1", redis__ca_file=tls.ca
    )
    token = server.login(wxfake.code()).token
    poll(
        lambda: server.auth(token).status == 200
        and server.metric("wxlogind_session_cache_total", result="hit"),
        what="from memory",
    )
    server.end(token)
    assert server.auth(token).status == 401
    redis.kill()
    poll(lambda: not server.ready(), what="not ready")
    redis.start()
    poll(server.ready, what="ready again")


def test_a_byte_at_a_time(stack, wxfake):
    tls = stack.tls()
    redis = tls_redis(stack, tls)
    proxy = OneByOne(redis.tls_port)
    server = stack.server(
        None, wxfake, redis__url=f"rediss://127.0.0.1:{proxy.port}", redis__ca_file=tls.ca,
        redis__timeout="5s", session__cache_entries="0",
    )
    tokens = [server.login(wxfake.code()).token for _ in range(3)]
    assert [server.auth(t).status for t in tokens] == [200] * 3
    proxy.close()


@pytest.mark.parametrize(
    "what", ["another CA", "another name", "expired", "no TLS there", "TLS there"]
)
def test_who_does_not_pass_is_told_nothing(stack, wxfake, what):
    tls = stack.tls(
        **(
            {"name": "redis.example"}
            if what == "another name"
            else {"days": -1}
            if what == "expired"
            else {}
        )
    )
    redis = tls_redis(stack, tls, "--requirepass", "hunter2hunter2")
    port = redis.port if what == "no TLS there" else redis.tls_port
    url = f"{'redis' if what == 'TLS there' else 'rediss'}://:hunter2hunter2@127.0.0.1:{port}"
    ca = stack.tls().ca if what == "another CA" else tls.ca
    before = commands(redis, "auth", "ping", "client|setname")
    server = stack.server(None, wxfake, wait=False, redis__url=url, redis__ca_file=ca)
    words = {
        "another CA": (
            "certificate: self-signed certificate in certificate chain|certificate: unable to get "
            "local issuer certificate|certificate signature failure"
        ),
        "another name": "IP address mismatch", "expired": "certificate has expired",
        "no TLS there": "is it the port for TLS?", "TLS there": "closed|reset",
    }[what].split("|")
    poll(
        lambda: any(w in server.inside("GET", "/readyz").json["message"] for w in words)
        or print(server.inside("GET", "/readyz")),
        5, f"one of {words}",
    )
    assert commands(redis, "auth", "client|setname") == before == []
    assert "hunter2" not in server.process.text()


def test_a_name_of_its_own_and_a_certificate_of_ours(stack, wxfake):
    tls = stack.tls(name="redis.example")
    redis = tls_redis(stack, tls, "--tls-auth-clients", "yes")
    config = {
        "redis__url": f"rediss://127.0.0.1:{redis.tls_port}", "redis__ca_file": tls.ca,
        "redis__tls_name": "redis.example",
    }
    refused = stack.server(None, wxfake, wait=False, **config)
    poll(
        lambda: "redis" in refused.process.text() and not refused.ready(),
        what="refused without a certificate",
    )
    server = stack.server(
        None, wxfake, **config, redis__cert_file=tls.cert, redis__key_file=tls.key
    )
    assert server.login(wxfake.code()).status == 200
    assert not refused.ready()


def test_a_renewed_ca_is_read_when_connecting(stack, wxfake):
    old, new = stack.tls(), stack.tls()
    file = stack.dir / "ca.pem"
    file.write_bytes(old.ca.read_bytes())
    redis = tls_redis(stack, new)
    server = stack.server(
        None, wxfake, wait=False, redis__url=f"rediss://127.0.0.1:{redis.tls_port}",
        redis__ca_file=file,
    )
    poll(lambda: "certificate" in server.inside("GET", "/readyz").json["message"], what="refused")
    file.write_bytes(new.ca.read_bytes())
    poll(server.ready, what="ready without a restart")


def test_files_that_are_none(stack, wxfake, tmp_path):
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(AssertionError, match="TLS to Redis cannot be set up"):
        stack.server(
            None, wxfake, wait=False, redis__url="rediss://127.0.0.1:1",
            redis__ca_file=tmp_path / "junk.pem",
        )
    stack.made["server"].clear()


@pytest.mark.parametrize("kind", [SentinelGroup, Cluster])
def test_several_servers(stack, wxfake, kind):
    """Sentinels, the master and the nodes alike; each has an address that the certificate does not
    name, so tls_name says what to look for."""
    tls = stack.tls()
    group = kind(stack.dir / "group", tls=tls)
    config = {"redis__url": group.url(), "redis__tls": "yes", "redis__ca_file": tls.ca}
    try:
        server = stack.server(None, wxfake, **config, redis__tls_name="127.0.0.1")
        token = server.login(wxfake.code()).token
        poll(
            lambda: server.auth(token).status == 200
            and server.metric("wxlogind_session_cache_total", result="hit"),
            what="from memory",
        )
        poll(lambda: server.session(token, "DELETE").status == 204, 5, "ended")
        assert server.auth(token).status == 401
        refused = stack.server(None, wxfake, wait=False, **config)
        poll(
            lambda: "IP address mismatch" in refused.process.text(), what="another name is refused"
        )
        assert not refused.ready()
    finally:
        server.process.stop()
        stack.made["server"].remove(server)
        group.stop()
