"""Connections to WeChat: kept while they live, never used when they are dead."""
import os
from concurrent.futures import ThreadPoolExecutor

from conftest import Process, free_port, poll


class NginxBefore:
    """nginx with TLS before wxfake. Like most servers it ends an idle connection with close_notify, then FIN."""

    def __init__(self, directory, wxfake, tls, settings="keepalive_timeout 1s;"):
        directory.mkdir()
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(f"""
            {user} daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
                fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
                upstream wxfake {{ server 127.0.0.1:{wxfake.port}; keepalive 16; }}
                server {{
                    listen 127.0.0.1:{self.port} ssl; ssl_certificate {tls.cert}; ssl_certificate_key {tls.key}; {settings}
                    location / {{ proxy_pass http://wxfake; proxy_http_version 1.1; proxy_set_header Connection ""; }}
                }}
            }}""")
        self.process = Process(["nginx", "-e", directory / "error.log", "-c", directory / "nginx.conf"], directory / "nginx.log")

    def stop(self):
        self.process.proc.terminate()
        self.process.proc.wait(10)


def sockets_to(port, state):
    """Of this machine's TCP connections to that port, those in a state of /proc/net/tcp."""
    rows = [line.split() for line in open("/proc/net/tcp").read().splitlines()[1:]]
    return sum(r[2].endswith(f":{port:04X}") and r[3] == state for r in rows)


ESTABLISHED = "01"


def logins_after_idling(server, wxfake, port, times=5):
    for _ in range(times):
        a = server.login(wxfake.code())
        assert a.status == 200, a
        poll(lambda: sockets_to(port, ESTABLISHED) == 0, what="the idle connection is closed")


def test_an_idle_connection_that_nginx_closed(stack, redis, wxfake):
    tls = stack.tls()
    nginx = NginxBefore(stack.dir / "nginx", wxfake, tls)
    try:
        server = stack.server(redis, None, wechat__base_url=nginx.url, wechat__ca_file=tls.ca)
        logins_after_idling(server, wxfake, nginx.port)
        assert wxfake.calls() == 5
    finally:
        nginx.stop()


def test_an_idle_connection_that_wxfake_closed(stack, redis):
    """wxfake closes as nginx does."""
    tls = stack.tls()
    wxfake = stack.wxfake("--keepalive", "500ms", tls=tls)
    server = stack.server(redis, wxfake, wechat__ca_file=tls.ca)
    logins_after_idling(server, wxfake, wxfake.port)


def test_connections_that_end_under_load(stack, redis, wxfake):
    """nginx closes each connection after 20 requests: none of 600 logins meets a closed one."""
    tls = stack.tls()
    nginx = NginxBefore(stack.dir / "nginx", wxfake, tls, "keepalive_requests 20;")
    try:
        server = stack.server(redis, None, wechat__base_url=nginx.url, wechat__ca_file=tls.ca, log__level="warn")
        codes = [wxfake.code() for _ in range(600)]
        answers = everywhere(codes, server.login, 16)
        assert [a for a in answers if a.status != 200] == []
    finally:
        nginx.stop()


def everywhere(inputs, ask, threads):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, inputs))


def test_an_idle_connection_is_given_up_before_wechat_closes_it(server, wxfake):
    """WeChat is said to close after 20 s. What is on its way just then cannot be saved; so it does not come to that."""
    assert server.login(wxfake.code()).status == 200
    assert sockets_to(wxfake.port, ESTABLISHED) == 1
    poll(lambda: sockets_to(wxfake.port, ESTABLISHED) == 0, seconds=19, what="given up")
    assert server.login(wxfake.code()).status == 200
