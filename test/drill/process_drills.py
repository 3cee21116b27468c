"""We are told to end, to read our configuration again, are killed, or run out of descriptors."""
import contextlib
import http.client
import os
import resource
import signal
import socket
import time

from drill import cpu_seconds, descriptors, drill, now, poll, rss_mb


@drill("sigterm", "SIGTERM under load, logins in flight at a slow WeChat")
def sigterm(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w)
    load = d.load(s, logins=20)
    w.fault(mode="slow", delay_ms=800, count=100000)
    time.sleep(1.5)
    told = now()
    s.process.signal(signal.SIGTERM)
    s.process.proc.wait(35)
    took = now() - told
    load.stop()
    d.must(s.process.proc.returncode == 0, f"exit {s.process.proc.returncode}")
    s.process.stop()  # looks at what it said
    s.ended = True
    unanswered = [a for a in load.between(0, told - 0.01) if a.status == 0]
    in_flight = [a for a in load.between(told - 5, told) if a.sent + a.took > told]
    d.figure(
        f"ended after {took:.2f} s, {len(in_flight)} requests were in flight, {len(unanswered)} of "
        "them not answered"
    )
    d.must(not unanswered, f"not answered: {unanswered[:5]}")
    d.must(
        len(in_flight) >= 5
        and all(a.status in (200, 204, 401) for a in in_flight if a.sent < told - 0.01),
        f"in flight: {in_flight}",
    )
    w.clear()
    other = d.server(r, w)
    load.servers = [other]
    live, ended = load.settle()
    d.figure(
        f"{live} live and {ended} ended sessions held to their word by the next process, lost "
        f"{len(load.ledger.lost)}"
    )
    d.must(
        not load.ledger.lost and not load.ledger.stale and live > 0, f"lost: {load.ledger.lost[:3]}"
    )


@drill("sigterm-group", "SIGTERM twice to the whole process group under load, two workers")
def sigterm_group(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, preexec=os.setsid, server__workers=2)
    load = d.load(s, logins=20, stale_s=0.3)
    w.fault(mode="slow", delay_ms=800, count=100000)
    time.sleep(1.5)
    told = now()
    for _ in range(2):  # as timeout(1) does
        os.killpg(s.process.pid, signal.SIGTERM)
        time.sleep(0.05)
    s.process.proc.wait(35)
    load.stop()
    d.must(s.process.proc.returncode == 0, f"exit {s.process.proc.returncode}")
    s.process.stop()
    s.ended = True
    unanswered = [a for a in load.between(0, told - 0.01) if a.status == 0]
    in_flight = [a for a in load.between(told - 5, told) if a.sent + a.took > told]
    d.figure(f"{len(in_flight)} requests were in flight, {len(unanswered)} of them not answered")
    d.must(not unanswered, f"not answered: {unanswered[:5]}")
    d.must(len(in_flight) >= 5, f"in flight: {in_flight}")
    w.clear()
    load.servers = [d.server(r, w)]
    live, ended = load.settle()
    d.figure(
        f"{live} live and {ended} ended sessions held to their word by the next process, lost "
        f"{len(load.ledger.lost)}"
    )
    d.must(
        not load.ledger.lost and not load.ledger.stale and live > 0, f"lost: {load.ledger.lost[:3]}"
    )


@drill(
    "worker-kill-alone",
    "kill -9 of one worker of two while the log's reader is dead and the user database away",
)
def worker_kill_alone(d):
    r, w = d.redis(), d.wxfake()
    home, away = d.dir / "users", d.dir / "away"
    home.mkdir()
    reader, writer = os.pipe()
    s = d.server(
        r, w, preexec=lambda: os.dup2(writer, 2), server__workers=2,
        users__url=f"sqlite://{home}/users.db",
    )
    os.close(writer)

    def workers():
        return [
            int(p)
            for p in open(f"/proc/{s.process.pid}/task/{s.process.pid}/children").read().split()
        ]
    load = d.load(s, connections=32, stale_s=0.3)
    os.close(reader)
    home.rename(away)
    home.write_text("no directory")
    killed, victim = now(), workers()[0]
    os.kill(victim, signal.SIGKILL)
    time.sleep(4)
    alone = len(workers())
    broken = [a for a in load.between(killed + 0.5) if a.status == 0]
    d.figure(
        f"{len(load.between(killed + 0.5))} requests were answered by the other, {len(broken)} "
        "broke"
    )
    d.must(not broken and len(load.between(killed + 0.5)) > 100, f"broke: {broken[:5]}")
    home.unlink()
    away.rename(home)
    back = now()
    poll(
        lambda: len(workers()) == 2 and s.metric("wxlogind_redis_connected") == 1, 30,
        "another worker",
    )
    d.figure(f"{alone} workers while it was away, another {now() - back:.1f} s after it was back")
    d.good_again(load, back, 0.99)
    d.end_load(load)


@drill("sighup", "SIGHUP 100 times, every tenth with a bad file")
def sighup(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w)
    load = d.load(s)
    good, began, before = s.file.read_text(), now(), None

    def count(what):
        return s.process.text().count(what)

    def reload(text):
        had = count('msg=reloaded') + count("reload failed")
        s.file.write_text(text)
        s.process.signal(signal.SIGHUP)
        poll(lambda: count('msg=reloaded') + count("reload failed") > had, 10, "read again")
    for i in range(100):
        reload(
            "[app\nnonsense\n"
            if i % 10 == 9
            else good.replace("[server]\n", f"[server]\ndrain_timeout = {20 + i % 10}s\n")
        )
        if i == 20:
            before = rss_mb(s.process.pid)
    reload(good)
    growth = rss_mb(s.process.pid) - before
    d.figure(
        f"{count('msg=reloaded')} taken, {count('reload failed')} refused, grew {growth:.2f} MB "
        "over the last 80"
    )
    d.must(
        count("reload failed") == 10 and count("msg=reloaded") == 91,
        "not each was answered by its word in the log",
    )
    d.must_not_grow(growth, 2)
    d.must(load.good(began) == 1.0, f"callers noticed: {load.bad(began)}")
    d.end_load(load)


@drill("worker-kill", "kill -9 of one worker of four")
def worker_kill(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, server__workers=4)

    def workers():
        return [
            int(p)
            for p in open(f"/proc/{s.process.pid}/task/{s.process.pid}/children").read().split()
        ]
    load = d.load(s, connections=32, stale_s=0.3)
    d.must(len(workers()) == 4, f"workers: {workers()}")
    killed, victim = now(), workers()[1]
    os.kill(victim, signal.SIGKILL)
    poll(lambda: len(workers()) == 4 and victim not in workers(), 5, "another worker")
    d.figure(f"another after {now() - killed:.1f} s")
    time.sleep(3)
    broken = [a for a in load.between(killed - 5) if a.status == 0]
    wrong = [
        a
        for a in load.between(killed - 5)
        if a.status not in (0, 200, 204, 401) or (a.status == 401 and not a.good)
    ]
    d.figure(f"{len(broken)} requests broke off with it, {len(wrong)} other errors")
    d.must(len(broken) <= load.connections * 2, f"{len(broken)} broke")
    d.must(not [a for a in broken if a.sent > killed + 2], "connections broke later")
    d.must(not wrong, f"others erred: {wrong[:5]}")
    d.good_again(load, killed + 2, 0.999)
    d.end_load(load)


@drill("descriptors", "256 descriptors, 1,000 callers")
def out_of_descriptors(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
    token = s.login(w.code()).token
    keep = http.client.HTTPConnection("127.0.0.1", s.internal, timeout=5)
    callers = []
    for _ in range(1000):
        c = socket.socket()
        c.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            c.connect(("127.0.0.1", s.port))
        callers.append(c)
    time.sleep(2.5)  # what is refused lingers for two
    held, cpu, at = descriptors(s.process.pid), cpu_seconds(s.process.pid), now()
    good = 0
    for _ in range(40):
        keep.request("GET", "/internal/auth", headers={"Authorization": f"Bearer {token}"})
        a = keep.getresponse()
        a.read()
        good += a.status == 200
        time.sleep(0.05)
    busy = (cpu_seconds(s.process.pid) - cpu) / (now() - at)
    d.figure(
        f"{held} descriptors in use, CPU {busy:.0%} while full, {good} of 40 verifies on the "
        "internal side good"
    )
    d.must(
        held < 256 and busy < 0.2 and good == 40,
        f"descriptors {held}, CPU {busy:.0%}, verifies {good} of 40",
    )
    for c in callers:
        c.close()
    freed = now()
    poll(lambda: s.session(token).status == 200, 5, "accepting again")
    d.figure(f"accepting again after {now() - freed:.2f} s")
    a = s.login(w.code())
    d.must(a.status == 200, f"a login afterwards: {a}")
    keep.close()
