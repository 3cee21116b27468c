"""What the figures shall reach. A ratio is of one round: what else the machine does then hits both
sides. It is reached only if it is in the worst round that counts."""
import collections
import statistics

import peers

Ratio = collections.namedtuple("Ratio", "title race ours theirs figure most")
Count = collections.namedtuple("Count", "title kind figure most")

RATIOS = [
    Ratio("auth from memory : bare libevhtp", "auth", peers.MEMORY, peers.CEILING, "cpu_us", 0.80),
    Ratio("auth through Redis : webdis", "auth", peers.REDIS, peers.WEBDIS, "cpu_us", 0.52),
    Ratio(
        "login, WeChat over HTTP : nginx with Lua", "login-http", peers.WXLOGIND, peers.NGINX,
        "cpu_us", 0.78,
    ),
    Ratio(
        "login, WeChat over TLS : nginx with Lua", "login-tls", peers.WXLOGIND, peers.NGINX,
        "cpu_us", 0.74,
    ),
    Ratio(
        "the same over HTTP, log = info and users = sqlite", "login-http", peers.FULL, peers.NGINX,
        "cpu_us", 0.95,
    ),
    Ratio(
        "the same over TLS, log = info and users = sqlite", "login-tls", peers.FULL, peers.NGINX,
        "cpu_us", 0.95,
    ),
    Ratio(
        "Redis' CPU of a login : of the peer's SETEX", "login-tls", peers.WXLOGIND, peers.NGINX,
        "redis_us", 1.8,
    ),
]
COUNTS = [
    Count("instructions, login over TLS", "login, WeChat over TLS", "instructions", 160000),
    Count("instructions, auth from memory", "auth from memory", "instructions", 16500),
    Count("instructions, auth through Redis", "auth through Redis", "instructions", 24000),
    Count("system calls, login over TLS", "login, WeChat over TLS", "calls", 7.6),
    Count("system calls, auth from memory", "auth from memory", "calls", 2.1),
]


def ratios(goal, rounds):
    """In order; of the rounds that are void for neither."""
    return sorted(
        a[goal.figure] / b[goal.figure]
        for a, b in zip(rounds[goal.ours], rounds[goal.theirs])
        if a and b
    )


def sentence(goal, rounds):
    found = ratios(goal, rounds)
    if not found:
        return f"{goal.title}: no round was without errors."
    return (
        f"{goal.title} = **{statistics.median(found):.2f}** ({found[0]:.2f} to {found[-1]:.2f} "
        f"over {len(found)} rounds); "
        f"goal at most {goal.most}: "
        f"{'reached' if found[-1] <= goal.most else 'not reached in every round'}."
    )


def rows(runs, instructions):
    """The table of goals: each with what every run found, and whether the worst round of all
    reached it."""
    for goal in RATIOS:
        found = [ratios(goal, run[goal.race]) for run in runs]
        spans = [
            f"{statistics.median(f):.2f} ({f[0]:.2f} to {f[-1]:.2f})" if f else "void"
            for f in found
        ]
        yield goal.title, f"{goal.most:.2f}", "; ".join(spans), all(
            f and f[-1] <= goal.most for f in found
        )
    for goal in COUNTS:
        n = instructions.get(goal.kind, {}).get(goal.figure)
        if n is not None:
            yield goal.title, f"{goal.most:,}", f"{n:,}", n <= goal.most


def figures(run):
    """What is kept of a run, as one figure for each goal: None where all rounds were void."""
    for goal in RATIOS:
        found = [r for one in run["runs"] for r in ratios(goal, one[goal.race])]
        yield goal.title, statistics.median(found) if found else None
    for goal in COUNTS:
        yield goal.title, run.get("instructions", {}).get(goal.kind, {}).get(goal.figure)


def differences(before, now):
    """Each goal's figure in two runs, and by how much of it the later one differs."""
    then = dict(figures(before))
    for title, figure in figures(now):
        if figure is not None and then.get(title):
            yield title, then[title], figure, figure / then[title] - 1
