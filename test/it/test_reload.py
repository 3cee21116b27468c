"""SIGHUP: what a reload applies, and what it only names."""
import re
import signal

from conftest import ROOT, poll

CA = "/etc/ssl/certs/ca-certificates.crt"
# A value for each key that waits for a restart, other than the one it starts with.
CHANGED = {
    "server.listen": "127.0.0.1:1", "server.internal_listen": "127.0.0.1:2", "server.workers": "2",
    "server.unix_mode": "0600", "server.unix_group": "0", "log.format": "json",
    "redis.url": "redis://127.0.0.1:1/1", "redis.password": "another", "redis.key_prefix": "other:",
    "redis.timeout": "1s", "redis.tls": "yes", "redis.ca_file": CA,
    "redis.tls_name": "redis.example", "redis.cert_file": CA, "redis.key_file": CA,
    "redis.sentinel_user": "u", "redis.sentinel_password": "p", "session.ttl": "1d",
    "session.max_age": "29d", "session.max_per_user": "3", "session.replay_window": "0",
    "session.encryption_key": "22" * 32, "session.cache_entries": "1",
    "wechat.base_url": "http://127.0.0.1:1", "wechat.fallback_urls": "http://127.0.0.1:2",
    "wechat.connect_timeout": "2s", "wechat.timeout": "4s", "wechat.max_connections": "3",
    "wechat.proxy": "http://127.0.0.1:3", "wechat.ca_file": CA,
    "users.url": "sqlite:///tmp/never-made.db", "users.password": "another", "users.ca_file": CA,
    "audit.file": "/tmp/never-made.log", "audit.openid": "clear",
}


def documented(change):
    """The keys whose change needs that, as docs/configuration.md says."""
    text = (ROOT / "docs/configuration.md").read_text()
    tables = re.findall(r"^<!-- keys: (\w+) -->$(.*?)^<!-- end -->$", text, re.M | re.S)
    return {
        f"{section}.{key}"
        for section, table in tables
        for key in re.findall(rf"^\| `(\w+)`.*\| {change} \|$", table, re.M)
        if section != "app"
    }


def test_every_key_that_waits_for_a_restart_is_named(stack, redis, wxfake):
    assert set(CHANGED) == documented("restart")
    server = stack.server(redis, wxfake, session__encryption_key="11" * 32)
    text = server.file.read_text()
    sections = {}
    for key, value in CHANGED.items():
        sections.setdefault(key.partition(".")[0], []).append(
            f"{key.partition('.')[2]} = {value}\n"
        )
    app = text[text.index("[app "):]
    server.file.write_text(
        "".join(f"[{s}]\n" + "".join(lines) for s, lines in sections.items()) + app
    )
    server.process.signal(signal.SIGHUP)
    poll(lambda: "msg=reloaded" in server.process.text(), what="reloaded")
    assert set(
        re.findall(r"a changed setting needs a restart\" key=(\S+)", server.process.text())
    ) == set(CHANGED)
    assert server.login(wxfake.code()).status == 200  # what was in force still is
    server.file.write_text(text)
    server.process.signal(signal.SIGHUP)
    poll(lambda: server.process.text().count("msg=reloaded") == 2, what="reloaded")
    assert server.process.text().count("needs a restart") == len(CHANGED)
