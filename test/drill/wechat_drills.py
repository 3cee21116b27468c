"""WeChat hangs, drips, breaks off, is busy, is away, shows the wrong certificate."""
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from drill import drill, now, poll
from proxy import Proxy

WECHAT_S = 3.0


def calls(w):
    return w.calls("jscode2session")


def fault(name, what, statuses, once, **played):
    @drill(f"wechat-{name}", f"WeChat: {what}")
    def play(d):
        r, w = d.redis(), d.wxfake()
        s = d.server(r, w)
        load = d.load(s, logins=6)
        w.fault(**{"mode": name, "count": 1000000, **played})
        begin = now()
        time.sleep(6)
        end = now()
        w.clear()
        time.sleep(3.4)  # what still hangs
        since = now()
        time.sleep(2)
        # one that is asked again may outlast the fault
        logins = load.between(begin, end - 1, "login")
        seen = {a.status for a in logins}
        d.must(
            logins and seen <= statuses, f"logins answered {sorted(seen)}: {load.bad(begin, end)}"
        )
        d.figure(f"{len(logins)} logins answered {sorted(seen)}")
        d.slowest(load, begin, end, WECHAT_S * 1.1 + 1, "login")
        p99, p95 = (load.percentile(p, begin, end, "verify") for p in (0.99, 0.95))
        d.figure(f"verify p99 {load.p99_before:.1f} ms before, {p99:.1f} ms meanwhile")
        d.must(
            p95 <= max(3 * load.p95_before, 250),
            f"verify p95 {p95:.1f} ms, before {load.p95_before:.1f} ms",
        )
        d.must(load.good(begin, kind="verify") > 0.999, f"verifies suffered: {load.bad(begin)}")
        d.good_again(load, since)
        d.end_load(load)
        if once:
            # one a second at most, of our own
            asked, probes = len(load.between(0, kind="login")), int(now() - begin) + 1
            d.figure(f"{calls(w)} calls for {asked} logins and up to {probes} probes")
            d.must(
                calls(w) <= asked + probes,
                f"{calls(w)} calls for {asked} logins: a code was sent twice",
            )


fault("hang", "takes the call and says nothing", {503}, True)
fault("drip", "a byte every 200 ms", {503}, True)
fault("reset", "resets instead of answering", {503}, True)
fault("500", "HTTP 500", {502, 503}, True)
fault("truncated", "JSON cut short", {502}, True)
fault("huge", "10 MB for an answer", {502}, True)
fault("busy", "-1 for ever", {503}, False, mode="errcode", errcode=-1)


@drill("wechat-away", "WeChat away 10 s: whoever connects is reset")
def wechat_away(d):
    r, w = d.redis(), d.wxfake()
    p = Proxy(w.port)
    d.closing.callback(p.close)
    s = d.server(r, w, wechat__base_url=f"http://127.0.0.1:{p.port}")
    load = d.load(s, logins=15)
    p.away()
    gone = now()
    time.sleep(10)
    back = now()
    p.back()
    time.sleep(2)
    since = now()
    time.sleep(2.5)
    probes = [t for t in p.accepted if gone + 3 <= t < back]
    rate = len(probes) / (back - gone - 3)
    d.figure(f"{rate:.2f} probes/s")
    d.must(rate <= 2, f"{rate:.2f} probes a second")
    refused = load.between(gone + 3, back, "login")
    d.must(
        refused and all(a.status == 503 and a.error == "wechat_unavailable" for a in refused),
        f"logins: {load.bad(gone + 3, back)}",
    )
    p95 = load.percentile(0.95, gone + 3, back, "login")
    d.figure(
        f"login 503 in {load.percentile(0.5, gone + 3, back, 'login'):.1f} ms, p95 {p95:.1f} ms"
    )
    d.must(p95 < 100, f"503 took {p95:.0f} ms at p95")
    d.must(load.good(gone, kind="verify") > 0.999, f"verifies suffered: {load.bad(gone)}")
    d.good_again(load, since)
    d.end_load(load)


class Swallower:
    """A port whose accept queue is full: what connects gets no answer at all."""

    def __init__(self):
        self.server, self.filling = socket.create_server(("127.0.0.1", 0), backlog=0), []
        self.port = self.server.getsockname()[1]
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", self.port))
            self.filling.append(s)

    def close(self):
        for s in [self.server, *self.filling]:
            s.close()


@drill(
    "wechat-swallowed",
    "WeChat's first host swallows connections: 300 logins at once, then one after the other",
)
def wechat_swallowed(d):
    r, w = d.redis(), d.wxfake()
    hole = Swallower()
    d.closing.callback(hole.close)
    s = d.server(
        r, w, wechat__base_url=f"http://127.0.0.1:{hole.port}", wechat__fallback_urls=w.url
    )
    codes = [w.code() for _ in range(300)]
    with ThreadPoolExecutor(300) as pool:
        burst = list(pool.map(s.login, codes))
    good = sum(a.status == 200 for a in burst) / len(burst)
    d.figure(
        f"{good:.1%} of a burst of {len(burst)} succeed, the slowest in "
        f"{max(a.seconds for a in burst):.2f} s"
    )
    d.must(good >= 0.95, f"only {good:.1%} of the burst succeed")
    later = [s.login(w.code()) for _ in range(200)]
    slowest = max(a.seconds for a in later)
    d.figure(
        f"{sum(a.status == 200 for a in later)} of {len(later)} later ones, the slowest in "
        f"{slowest * 1000:.0f} ms"
    )
    d.must(all(a.status == 200 for a in later), "a later login failed")
    d.must(slowest < 0.5, f"a later login waited {slowest:.2f} s")


@drill("wechat-frozen", "WeChat: SIGSTOP 5 s")
def wechat_frozen(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w)
    load = d.load(s, logins=6)
    stopped = now()
    w.process.signal(signal.SIGSTOP)
    time.sleep(5)
    w.process.signal(signal.SIGCONT)
    thawed = now()
    time.sleep(4)  # the last that waited
    since = now()
    time.sleep(2)
    d.slowest(load, stopped, thawed, WECHAT_S * 1.1 + 1, "login")
    d.must(load.good(stopped, kind="verify") > 0.999, f"verifies suffered: {load.bad(stopped)}")
    d.good_again(load, since)
    d.end_load(load)


def certificate(directory, name, days):
    """One for that name, of a CA of its own; days below 0: one that has ended."""
    run = lambda *a: subprocess.run(
        ["openssl", *map(str, a)], check=True, capture_output=True, cwd=directory
    )
    run(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
        "-days", 2, "-subj", "/CN=drill ca",
    )
    run(
        "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.csr", "-subj",
        f"/CN={name}",
    )
    (directory / "ext").write_text(
        f"subjectAltName={'IP' if name[0].isdigit() else 'DNS'}:{name}\n"
    )
    run(
        "x509", "-req", "-in", "cert.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", "cert.pem", "-days", days, "-extfile", "ext",
    )

    class Tls:
        ca, cert, key = directory / "ca.pem", directory / "cert.pem", directory / "key.pem"
    return Tls


@drill("wechat-tls", "TLS: expired, wrong name, unknown CA")
def wechat_tls(d):
    r = d.redis()
    good = certificate(d.subdir("tls"), "127.0.0.1", 2)
    other = certificate(d.subdir("tls"), "127.0.0.1", 2)
    for name, tls, ca, word in (
        ("expired", certificate(d.subdir("tls"), "127.0.0.1", -1), None, "expired"),
        ("wrong name", certificate(d.subdir("tls"), "wechat.example", 2), None, "for another name"),
        ("unknown CA", good, other.ca, "issuer certificate"),
        ("good", good, None, ""),
    ):
        w = d.wxfake(tls=tls)
        s = d.server(r, w, wechat__ca_file=ca or tls.ca)
        a = s.login(w.code())
        if name == "good":
            d.must(a.status == 200, f"with a good certificate: {a}")
            continue
        d.must((a.status, a.error) == (503, "wechat_unavailable"), f"{name}: {a}")
        d.must(calls(w) == 0, f"{name}: a request was sent")
        d.must(word in s.process.text(), f"{name}: the log does not say why")
        d.figure(f"{name}: 503 in {a.seconds * 1000:.0f} ms")
