"""Who allocates for one answer from memory: callgrind counts calls of malloc and its kin for two
numbers of requests; the difference belongs to the requests. Prints allocations per request by
the object and function that asked for them."""
import collections
import contextlib
import http.client
import json
import re
import signal

from stack import Stack, call, metric, say

ALLOCATORS = {"malloc", "calloc", "realloc", "memalign", "posix_memalign", "aligned_alloc"}


def count_calls(path):
    """(object, caller) -> calls of an allocator, from a callgrind file."""
    names, counts = {}, collections.Counter()
    ob = fn = cob = cfn = ""

    def name(kind, text):
        m = re.match(r"\((\d+)\)(?: (.*))?", text)
        key = (kind, m[1])
        if m[2]:
            names[key] = m[2]
        return names[key]
    for line in open(path):
        line = line.rstrip("\n")
        if line.startswith("ob="):
            ob = name("ob", line[3:])
        elif line.startswith("fn="):
            fn, cob = name("fn", line[3:]), ob
        elif line.startswith("cob="):
            cob = name("ob", line[4:])
        elif line.startswith("cfn="):
            cfn = name("fn", line[4:])
        elif line.startswith("calls="):
            if cfn.split("'")[0] in ALLOCATORS and fn.split("'")[0] not in ALLOCATORS:
                counts[(ob.rsplit("/", 1)[-1], fn)] += int(line[6:].split()[0])
            cob = ob
    return counts


def run(stack, redis, fake, n):
    server = stack.server(redis, fake, valgrind=stack.dir / f"callgrind.{n}")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.internal)) as c:
        token = json.loads(
            call(
                server.port, "POST", "/v1/login",
                {"code": f"alloc{n}"},
                {"Content-Type": "application/json"},
            )[1]
        )["third_session"]
        for _ in range(n):
            c.request("GET", "/internal/auth", headers={"Authorization": f"Bearer {token}"})
            r = c.getresponse()
            r.read()
            assert r.status == 200
    hits = metric(server, 'wxlogind_session_cache_total{result="hit"}')
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    return hits, count_calls(stack.dir / f"callgrind.{n}")


def allocations(report):
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        say("==> allocations: under callgrind, which takes a while")
        few, many = 500, 2500
        hits1, calls1 = run(s, redis, fake, few)
        hits2, calls2 = run(s, redis, fake, many)
    n = many - few
    each = {
        key: (calls2[key] - calls1[key]) / n
        for key in sorted(set(calls1) | set(calls2), key=lambda k: calls1[k] - calls2[k])
    }
    report.section(f"allocations for each answer from memory ({hits2 - hits1:.0f} of {n} requests)")
    report.table(
        ("object", "function", "per request"),
        [(*key, f"{per:.2f}") for key, per in each.items() if per >= 0.01],
        text=2,
    )
    report.note(
        "wxlogind's own: "
        f"{sum(per for key, per in each.items() if key[0].startswith('wxlogind')):.2f}"
    )
