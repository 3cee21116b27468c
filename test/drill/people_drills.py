"""An erasure is killed wherever it can be, and repeated by another process; a block comes while
everybody is being checked."""
import contextlib
import http.client
import random
import re
import signal
import sqlite3
import subprocess
import threading
import time

from conftest import APPID, Mariadb
from drill import call, drill, now, poll
from proxy import Proxy

PERSON = {"unionid": "uDrillUnion", "nickName": "DrillNick", "phoneNumber": "13812345678"}
# what only these two calls of an erasure hold
MARK, END = (b":m:{", b"60000"), (b":m:{", b"revoked")
TIMEOUT_S = 0.5                                         # redis.timeout


def path(openid, more=""):
    return f"/internal/apps/{APPID}/users/{openid}{more}"


class Gate(Proxy):
    """Before Redis. From the call that holds these words on nothing passes: not that call either,
    or only its answer does not."""

    def __init__(self, port):
        self.words, self.stop_answer, self.shut, self.held = None, False, False, threading.Event()
        super().__init__(port)

    def set(self, words, stop_answer):
        self.words, self.stop_answer = words, stop_answer

    async def pump(self, reader, writer, back):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                hit = not back and self.words and all(w in piece for w in self.words)
                if hit:
                    self.shut = True
                if not self.shut or (hit and self.stop_answer):
                    writer.write(piece)
                if hit and not self.stop_answer or back and self.shut:
                    self.held.set()


class Sqlite:
    """The user database in a file, as a drill sees it."""

    def __init__(self, d):
        self.file = d.subdir("sqlite") / "users.db"
        self.url, self.lock = f"sqlite://{self.file}", None

    def text(self):
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            return "\n".join(db.iterdump())

    def hold(self, table):
        """The one lock that there is: nobody writes."""
        self.lock = sqlite3.connect(self.file, isolation_level=None)
        self.lock.execute("BEGIN IMMEDIATE")

    def wait_held(self, erasure):
        poll(erasure.marked, 10, "the mark")
        time.sleep(0.1)  # so that its transaction waits

    def let_go(self):
        self.lock.execute("ROLLBACK")
        self.lock.close()


class Mysql:
    def __init__(self, d):
        directory = d.subdir("mariadb")
        self.server = Mariadb(directory, Mariadb.install(directory / "empty"))
        d.closing.callback(self.server.stop)
        self.url = self.server.database()
        self.name, self.holder = self.url.rpartition("/")[2], None

    def text(self):
        tables = self.server.sql(f"SHOW TABLES IN {self.name}").split()
        sql = ";".join(f"SELECT * FROM {self.name}.{t}" for t in tables)  # some columns are no text
        return subprocess.run(self.server.client("-BNe", sql), check=True, capture_output=True,
                              text=True, errors="replace").stdout

    def hold(self, table):
        """Of the users: a transaction waits before it does anything. Of the tombstones: it has
        deleted the user's row by then."""
        self.holder = subprocess.Popen(self.server.client("-n", "-BN", self.name), text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdin.write(f"BEGIN; SELECT COUNT(*) FROM wxlogind_{table} FOR UPDATE;\n")
        self.holder.stdin.flush()
        self.holder.stdout.readline()

    def wait_held(self, erasure):
        sql = (
            "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK "
            "WAIT'"
        )
        self.waiting = poll(lambda: self.server.sql(sql).split(), 10, "the transaction waits")

    def let_go(self):
        """First the database sees that who waited is gone, so that this transaction is rolled
        back."""
        for thread in self.waiting:
            self.server.cli(f"KILL {thread}")
        self.holder.stdin.close()
        self.holder.wait(10)


class Erasure:
    """A user who is logged in three times and known to another process, and a process that will die
    while it erases the user."""

    def __init__(self, d, r, w, db, survivor, openid):
        self.d, self.r, self.w, self.db, self.survivor, self.openid = d, r, w, db, survivor, openid
        self.gate = Gate(r.port)
        self.victim = d.server(
            r, w, redis__url=f"redis://127.0.0.1:{self.gate.port}/0", users__url=db.url
        )
        # so that Redis knows the scripts: each call is one
        warm = self.victim.inside("DELETE", path("oDrillNobody"))
        assert warm.status == 204, warm
        self.tokens = [
            s.login(w.code(openid=openid)).token for s in (self.victim, survivor, survivor)
        ]
        a = survivor.inside("PUT", path(openid), PERSON)
        assert a.status == 200, a
        assert [survivor.auth(t).status for t in self.tokens * 2] == [200] * 6  # it remembers them
        self.name = r.cli(
            "EVAL", "return string.sub(redis.sha1hex(ARGV[1]), 1, 16)", 0, f"{APPID}:{openid}"
        ).strip()
        self.answered = None

    def begin(self):
        def ask():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.answered = call(
                    self.victim.internal, "DELETE", path(self.openid), timeout=10
                ).status
        self.asking = threading.Thread(target=ask, daemon=True)
        self.asking.start()

    def marked(self):
        return any(re.search(rf":m:\{{.*\}}:{self.name}$", k) for k in self.r.keys())

    def kill(self):
        self.victim.process.proc.kill()
        self.victim.process.proc.wait()
        self.victim.ended = True
        self.asking.join(10)
        self.gate.close()

    def left(self):
        """What of the user is in Redis and in the database."""
        found = [k for k in self.r.keys() if self.name in k]
        for k in self.r.keys():
            kind = self.r.cli("TYPE", k).strip()
            text = (
                self.r.cli("--no-raw", "ZRANGE", k, 0, -1)
                if kind == "zset"
                else self.r.cli("--no-raw", "GET", k)
                if kind == "string"
                else ""
            )
            found += [
                f"{k} holds {x}" for x in (self.openid, self.name, PERSON["unionid"]) if x in text
            ]
        text = self.db.text()
        return found + [
            f"the database holds {x}" for x in (self.openid, *PERSON.values()) if x in text
        ]

    def repeat(self, where):
        d, s = self.d, self.survivor
        a = poll(
            lambda: (a := s.inside("DELETE", path(self.openid))).status == 204 and a, 15,
            f"{where}: the repeat",
        )
        d.must(a.status == 204, f"{where}: the repeat: {a}")
        d.must(not (left := self.left()), f"{where}: left: {left}")
        got = [(a.status, a.headers.get("X-Wx-Reason")) for a in map(s.auth, self.tokens)]
        d.must(
            got == [(401, "revoked")] * 3,
            f"{where}: its sessions, by the process that remembered them: {got}",
        )
        d.must(s.inside("GET", path(self.openid)).status == 404, f"{where}: there still is a user")
        erased_at = int(time.time())
        a = s.login(self.w.code(openid=self.openid))
        new = (a.json or {}).get("new_user", True)  # a busy machine may leave it out
        d.must(
            a.status == 200 and new is True,
            f"{where}: the next login is {a.status}, new_user {new}",
        )
        u = poll(
            lambda: (u := s.inside("GET", path(self.openid))).status == 200 and u.json, 10,
            f"{where}: the new user",
        )
        d.must(
            u["phoneNumber"] is None and u["nickName"] is None and u["created_at"] >= erased_at,
            f"{where}: not a whole new user",
        )


def kill_there(d, e, where, expect_mark, words=None, stop_answer=False, held=None):
    """Everything stands still at this point when the process is killed. False: it came too late,
    the call had been given up."""
    if words:
        e.gate.set(words, stop_answer)
    if held:
        e.db.hold(held)
    e.begin()
    if words:
        d.must(e.gate.held.wait(10), f"{where}: never came there")
    if held:
        e.db.wait_held(e)
    e.kill()
    if held:
        e.db.let_go()
    if e.answered:
        return False
    d.must(e.marked() == expect_mark, f"{where}: the mark is {'not ' if expect_mark else ''}there")
    if expect_mark:
        a = e.survivor.login(e.w.code(openid=e.openid))
        d.must(
            a.status == 503 and a.headers.get("Retry-After"),
            f"{where}: a login before the repeat: {a}",
        )
    e.repeat(where)
    return True


POINTS = [
    ("before the mark", {"expect_mark": False, "words": MARK}),
    ("after the mark", {"expect_mark": True, "words": MARK, "stop_answer": True}),
    ("before SQL writes", {"expect_mark": True, "held": "users"}),
    ("half of SQL", {"expect_mark": True, "held": "erased"}),
    ("after SQL", {"expect_mark": True, "words": END}),
    ("after the sessions", {"expect_mark": False, "words": END, "stop_answer": True}),
]


@drill(
    "erase",
    "kill -9 at every step of an erasure and at random, SQLite and MariaDB; repeated by another "
    "process",
)
def erase(d):
    w, r = d.wxfake(), d.redis()
    for db in (Sqlite(d), Mysql(d)):
        kind = type(db).__name__
        survivor = d.server(r, w, users__url=db.url)
        points = [
            (where, how) for where, how in POINTS if how.get("held") != "erased" or kind == "Mysql"
        ]
        for i, (where, how) in enumerate(points):
            tries = (
                kill_there(
                    d, Erasure(d, r, w, db, survivor, f"oDrill{kind}Point{i}Try{k}"),
                    f"{kind}, {where}", **how,
                )
                for k in range(5)
            )
            d.must(any(tries), f"{kind}, {where}: not once killed there")
        answered, rounds = 0, 12
        for i in range(rounds):
            e = Erasure(d, r, w, db, survivor, f"oDrill{kind}Random{i}")
            e.begin()
            time.sleep(random.uniform(0, 0.004))
            e.kill()
            answered += e.answered == 204
            if e.answered == 204:
                d.must(not (left := e.left()), f"{kind}, answered 204: left: {left}")
            e.repeat(f"{kind}, at random")
        d.figure(
            f"{kind}: killed at {len(points)} steps and {rounds} times at random ({answered} were "
            "answered 204 before)"
        )
    d.figure(f"nothing left after {'the repeats' if not d.failures else 'some of the repeats'}")


class Checks:
    """One thread for each process: 200 checks a second of all the sessions, and when each was sent
    and what it got."""

    def __init__(self, servers, tokens):
        self.tokens, self.seen, self.stop = tokens, [], False
        self.threads = [threading.Thread(target=self.run, args=(s,), daemon=True) for s in servers]
        for t in self.threads:
            t.start()

    def run(self, server):
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", server.internal, timeout=10)
        ) as c:
            due, i = now(), 0
            while not self.stop:
                token, i = self.tokens[i % len(self.tokens)], i + 1
                sent = now()
                c.request("GET", "/internal/auth", headers={"Authorization": f"Bearer {token}"})
                a = c.getresponse()
                a.read()
                self.seen.append((sent, token, a.status, a.headers.get("X-Wx-Reason")))
                due = max(due + 1 / 200, now() - 0.05)
                time.sleep(max(0, due - now()))

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join(30)


def refused(d, what, servers, w, openids, seconds):
    """Blocked users log in at either process, over and over: each is 403."""
    got, until = {}, now() + seconds
    while now() < until:
        a = random.choice(servers).login(w.code(openid=random.choice(openids)))
        key = f"{a.status} {a.error or ''}".strip()
        got[key] = got.get(key, 0) + 1
        time.sleep(0.06)  # WeChat takes 100 logins a minute of one user
    d.figure(f"{what}: {', '.join(f'{n} logins {k}' for k, n in got.items())}")
    d.must(set(got) == {"403 user_blocked"}, f"{what}: logins of blocked users: {got}")


@drill(
    "block",
    "users are blocked at 200 checks/s on each of two processes; then MariaDB stopped; then Redis "
    "emptied",
)
def block(d):
    w, r, db = d.wxfake(), d.redis(), Mysql(d)
    servers = [d.server(r, w, users__url=db.url, redis__timeout="500ms") for _ in range(2)]
    people = {
        f"oDrillBlock{i:02d}": [
            s.login(w.code(openid=f"oDrillBlock{i:02d}")).token for s in servers
        ]
        for i in range(12)
    }
    blocked, free = list(people)[:10], list(people)[10:]
    checks = Checks(servers, [t for tokens in people.values() for t in tokens])
    d.closing.callback(checks.end)
    time.sleep(1.5)
    ended_at, began = {}, now()
    for i, openid in enumerate(blocked):
        a = servers[i % 2].inside("PUT", path(openid, "/block"), {})
        d.must(a.status == 204, f"a block: {a}")
        ended_at.update((t, now()) for t in people[openid])
        time.sleep(0.2)
    refused(d, "blocked", servers, w, blocked, 2)
    time.sleep(0.5)
    checks.end()
    rate = len([s for s in checks.seen if s[0] >= began - 1]) / (now() - began + 1) / 2
    late = [
        sent - ended_at[t]
        for sent, t, status, _ in checks.seen
        if status == 200 and t in ended_at and sent > ended_at[t]
    ]
    before = {
        t
        for sent, t, status, _ in checks.seen
        if status == 200 and t in ended_at and sent < ended_at[t]
    }
    after = {
        (status, why)
        for sent, t, status, why in checks.seen
        if t in ended_at and sent > ended_at[t] + TIMEOUT_S
    }
    others = {status for _, t, status, _ in checks.seen if t not in ended_at}
    d.figure(
        f"{rate:.0f} checks/s on each process, {len(late)} answers 200 after the 204, the latest "
        f"{max(late, default=0) * 1000:.0f} ms after"
    )
    d.must(
        len(before) == len(ended_at),
        f"only {len(before)} of {len(ended_at)} sessions were seen alive: this drill shows nothing",
    )
    d.must(max(late, default=0) <= TIMEOUT_S, f"a 200 {max(late, default=0):.3f} s after the 204")
    d.must(after == {(401, "blocked")}, f"answers later: {after}")
    d.must(others == {200}, f"of users who are not blocked: {others}")

    db.server.kill()
    refused(d, "MariaDB stopped", servers, w, blocked, 2)
    db.server.start()
    poll(
        lambda: all(s.inside("GET", path(free[0])).status == 200 for s in servers), 30,
        "MariaDB is back",
    )
    r.cli("FLUSHALL")
    refused(d, "Redis emptied", servers, w, blocked, 2)
    for i, openid in enumerate(blocked):
        a = servers[i % 2].inside("DELETE", path(openid, "/block"))
        d.must(a.status == 204, f"a block is lifted: {a}")
    again = [s.login(w.code(openid=o)).status for o in blocked for s in servers]
    d.must(again == [200] * len(again), f"logins after it was lifted: {again}")
    d.figure(f"lifted: {again.count(200)} of {len(again)} logins 200")
