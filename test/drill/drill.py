"""What a drill is made of. A drill is a function with the decorator: it gets a Drill, makes its
processes, starts a load, does the harm, and says what must be so. Every drill ends with the same
questions: does the process live, is it quiet, has it let go of everything."""
import contextlib
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "it"))
import conftest  # noqa: E402
from conftest import call, poll  # noqa: E402,F401
from load import Load, now  # noqa: E402

DRILLS = {}


def drill(name, what):
    def add(fn):
        DRILLS[name] = (what, fn)
        return fn
    return add


def rss_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


def descriptors(pid):
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Drill:
    def __init__(self, name):
        self.name, self.figures, self.failures = name, [], []
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"wxlogind-drill-{name}-"))
        self.made = {"server": [], "wxfake": [], "redis": []}
        self.loads, self.closing = [], contextlib.ExitStack()

    # --- what it says ---

    def figure(self, text):
        self.figures.append(text)

    def must(self, ok, text):
        if not ok:
            self.failures.append(text)
        return ok

    def must_not_grow(self, mb, most_mb):
        if not conftest.SANITIZED:  # a sanitizer keeps what is freed
            self.must(mb < most_mb, f"grew by {mb:.2f} MB")

    # --- what it is played with ---

    def subdir(self, kind):
        d = self.dir / f"{kind}{len(list(self.dir.iterdir()))}"
        d.mkdir()
        return d

    def redis(self, *args):
        self.made["redis"].append(conftest.Redis(self.subdir("redis"), *args))
        return self.made["redis"][-1]

    def wxfake(self, *args, **kw):
        self.made["wxfake"].append(conftest.Wxfake(self.subdir("wxfake"), *args, **kw))
        return self.made["wxfake"][-1]

    def server(self, redis, wxfake, env=None, preexec=None, wait=True, **config):
        # where Redis is not the patient, a busy machine that keeps it waiting half a second is none
        # of the drill's business
        config = {"log__level": "info", "redis__timeout": "2s", **config}
        s = conftest.Server(
            self.subdir("server"), "server", redis, wxfake, config, env, preexec, wait
        )
        self.made["server"].append(s)
        return s

    def tls(self, **kw):
        return conftest.Tls(self.subdir("tls"), **kw)

    def load(self, *servers, seconds=3, stale_s=0.0, **kw):
        """Starts it, and lets it run a while before the harm."""
        one = Load(list(servers), self.made["wxfake"][0], **kw)
        one.ledger.stale_s = stale_s
        self.loads.append(one)
        one.began = now()
        one.start()
        time.sleep(seconds)
        one.p99_before, one.p95_before = (
            one.percentile(p, one.began + 1, kind="verify") for p in (0.99, 0.95)
        )
        self.must(
            one.good(one.began + 0.5) > 0.999,
            f"before anything was done: {one.bad(one.began + 0.5)}",
        )
        return one

    def good_again(self, load, since, share=0.999):
        """Of what was asked for since then."""
        got = load.good(since)
        self.figure(f"good again {got:.2%}")
        self.must(got >= share, f"only {got:.2%} good again: {load.bad(since)}")

    def slowest(self, load, begin, end, limit_s, kind=None):
        took = load.percentile(1, begin, end, kind) / 1000
        self.figure(f"slowest{' ' + kind if kind else ''} {took:.2f} s")
        self.must(took <= limit_s, f"an answer took {took:.2f} s, more than {limit_s} s")

    def end_load(self, load):
        """Stops it, and holds the ledger against the server."""
        load.stop()
        live, ended = load.settle()
        led = load.ledger
        late = [s for s in led.stale if s > led.stale_s]
        self.figure(
            f"{len(load.answers)} answers, {live} live and {ended} ended sessions held to their "
            f"word, lost {len(led.lost)}, stale {len(late)}"
        )
        self.must(not led.lost, f"lost {len(led.lost)}: {led.lost[:3]}")
        self.must(not led.wrong, f"mismatched {len(led.wrong)}: {led.wrong[:3]}")
        self.must(not late, f"stale {len(late)}, up to {max(late, default=0):.3f} s after the 204")
        self.must(live > 0 and led.logins > 0, "nobody logged in: this drill shows nothing")

    # --- the end ---

    def quiet(self, s):
        """The callers are gone: nothing may be left of them."""
        def alone():
            with contextlib.suppress(OSError):
                return (
                    s.metric("wxlogind_connections", listener="public") == 0
                    and s.metric("wxlogind_connections", listener="internal") <= 1
                )
        poll(alone, 25, "let go of the callers' connections")

    def finish(self):
        for one in self.loads:
            if one.thread and not one.ending:
                one.stop()
        self.closing.close()
        for r in self.made["redis"]:
            with contextlib.suppress(OSError):
                r.signal(18)  # SIGCONT
        for s in self.made["server"]:
            if s.process.proc.poll() is None:
                self.must(s.is_up(), "healthz is not 200")
                self.quiet(s)
        for s in self.made["server"]:
            if not getattr(s, "ended", False):
                s.process.stop()
        for w in self.made["wxfake"]:
            w.codes += [c for one in self.loads for c in one.used_codes][-200:]
        for s in self.made["server"]:
            s.tokens += [t for one in self.loads for t in one.ledger.openid][:300]
        if found := conftest.leaks(self.made):
            self.failures.append(f"secrets where they should not be: {found[:3]}")
        for w in self.made["wxfake"]:
            w.process.stop()

    def sweep(self, keep):
        self.closing.close()  # where finish() was not come to
        for p in (
            [s.process for s in self.made["server"]]
            + [w.process for w in self.made["wxfake"]]
            + [r.process for r in self.made["redis"]]
        ):
            if p.proc.poll() is None:
                p.proc.send_signal(18)
                p.proc.kill()
                p.proc.wait()
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)


def run(name):
    """One drill: (failures, figures)."""
    what, fn = DRILLS[name]
    d = Drill(name)
    try:
        fn(d)
        d.finish()
    except Exception as e:  # a drill that breaks off has failed, and the next begins
        trace = traceback.extract_tb(e.__traceback__)[-1]
        d.failures.append(
            f"{type(e).__name__}: {str(e)[-1500:]} "
            f"({trace.filename.rsplit('/', 1)[-1]}:{trace.lineno})"
        )
    finally:
        d.sweep(keep=d.failures)
    if d.failures:
        d.failures.append(f"logs are in {d.dir}")
    return d.failures, d.figures


def median(values):
    return statistics.median(values) if values else 0.0
