"""scripts/bench users: profiles written to SQLite and to MySQL over a network of 1 ms, and logins
beside a MySQL that is frozen."""
import getpass
import os
import signal
import socket
import statistics
import subprocess
import threading
import time

from stack import BUILD, CORES, Stack, can_connect, free_port, metric, poll, say, tokens, wrk

REQUESTS = int(os.environ.get("BENCH_REQUESTS", "5000"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
CONNECTIONS = 64
DELAY_US = 500  # each way
EVERYWHERE = set(CORES)  # the helper thread and the database want cores too


def mariadb(stack):
    """A MariaDB with the settings it comes with: each commit is flushed to the disk."""
    d = stack.dir / "mariadb"
    subprocess.run(
        [
            "mariadb-install-db", "--no-defaults", f"--datadir={d}", f"--user={getpass.getuser()}",
            "--skip-test-db", "--auth-root-authentication-method=normal",
        ],
        check=True, capture_output=True,
    )
    port, init = free_port(), stack.dir / "init.sql"
    init.write_text(
        "CREATE DATABASE users;\nCREATE USER wxl@'127.0.0.1';\n"
        "GRANT ALL ON users.* TO wxl@'127.0.0.1';\n"
    )
    p = stack.start(
        [
            "mariadbd", "--no-defaults", f"--datadir={d}", f"--socket={stack.dir}/mariadb.sock",
            "--bind-address=127.0.0.1", f"--port={port}", f"--user={getpass.getuser()}",
            "--skip-name-resolve", f"--init-file={init}",
        ],
        EVERYWHERE, "mariadb",
    )
    p.port = port
    poll(lambda: can_connect(port), what="mariadbd")
    return p


def delayed(stack, port):
    at = free_port()
    p = stack.start([BUILD / "bench" / "delay", at, port, DELAY_US], EVERYWHERE, "delay")
    p.port = at
    poll(lambda: can_connect(at), what="delay")
    return p


def round_trip_ms(stack):
    """What the proxy adds, measured: an echo through it, and one beside it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo():
        while True:
            try:
                c = listener.accept()[0]
            except OSError:
                return
            threading.Thread(
                target=lambda: [c.sendall(x) for x in iter(lambda: c.recv(100), b"")], daemon=True
            ).start()
    threading.Thread(target=echo, daemon=True).start()
    port = listener.getsockname()[1]

    def median(at):
        with socket.create_connection(("127.0.0.1", at)) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = []
            for _ in range(200):
                began = time.perf_counter()
                s.sendall(b"x")
                s.recv(1)
                times.append(time.perf_counter() - began)
            return statistics.median(times) * 1000
    through = delayed(stack, port)
    added = median(through.port) - median(port)
    listener.close()
    return added


def puts(stack, name, server):
    env = {"TOKENS": str(tokens(stack, server, 1000)), "REQUESTS": str(REQUESTS)}
    rows = []
    for i in range(ROUNDS + 1):  # the first warms
        say(f"==> {name}: {REQUESTS} PUT /v1/user, {CONNECTIONS} connections")
        r = wrk(
            "users.lua", f"http://127.0.0.1:{server.port}", max(2, REQUESTS // 1000), CONNECTIONS,
            {**env, "RUN": str(i)},
        )
        if r["seconds"] < 0 or r["errors"]:
            raise SystemExit(f"bench: {name}: not {REQUESTS} answers of 200 in time: {r}")
        rows.append(
            (
                name, r["requests"], f"{r['seconds']:.3f}", f"{r['requests'] / r['seconds']:.0f}",
                r["p50_us"], r["p99_us"],
            )
        )
    return rows[1:]


def logins(name, server):
    say(f"==> logins, MySQL {name}: {SECONDS} s, {CONNECTIONS} connections")
    r = wrk("login.lua", f"http://127.0.0.1:{server.port}", SECONDS, CONNECTIONS)
    return (
        name, f"{r['requests'] / r['seconds']:.0f}", r["p50_us"], r["p99_us"], r["p999_us"],
        r["max_us"], r["errors"],
    )


def users(report):
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        maria = mariadb(s)
        url = f"mysql://wxl@127.0.0.1:{delayed(s, maria.port).port}/users"
        added = round_trip_ms(s)
        over_network = s.server(redis, fake, EVERYWHERE, users__url=url)
        report.section(f"users: {REQUESTS} PUT /v1/user from {CONNECTIONS} connections, 1000 users")
        report.table(
            ("users in", "requests", "s", "requests/s", "p50 µs", "p99 µs"),
            [
                *puts(
                    s, "SQLite",
                    s.server(redis, fake, EVERYWHERE, users__url=f"sqlite://{s.dir}/users.db"),
                ),
                *puts(s, "MariaDB", over_network),
            ],
        )
        report.note(
            f"MariaDB behind a proxy that adds {added:.2f} ms to a round trip (measured); both "
            "flush each commit to the disk."
        )
        wrk("login.lua", f"http://127.0.0.1:{over_network.port}", 1, CONNECTIONS)
        rows = [logins("there", over_network)]
        maria.send_signal(signal.SIGSTOP)
        time.sleep(0.3)  # the first 200 ms are what logins may wait
        rows.append(logins("frozen", over_network))
        maria.send_signal(signal.SIGCONT)
        poll(lambda: metric(over_network, "wxlogind_users_up") == 1, what="the user database")
        rows.append(logins("there again", over_network))
        report.section(
            f"users: logins from {CONNECTIONS} connections while MySQL is frozen (SIGSTOP)"
        )
        report.table(
            ("MySQL is", "logins/s", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "errors"), rows
        )
