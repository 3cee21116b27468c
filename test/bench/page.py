#!/usr/bin/env python3
"""What the documents say of speed, from docs/benchmarks/run.json, which `scripts/bench publish`
keeps. By itself: writes them anew."""
import json
import pathlib
import statistics
import subprocess

import goals
import peers

ROOT = pathlib.Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- figures: scripts/bench publish writes them -->", "<!-- /figures -->"
LANGUAGES = {
    "README.md": (
        "Shorter is better: the CPU time of one session check, in microseconds. For a session in "
        "its cache, wxlogind takes\n"
        "{memory}; nginx with Lua takes {nginx}, Go {go} and Node {node} for the same question;\n"
        "they ask Redis each time. A login over TLS takes {ratio} of\n"
        "what it takes nginx with Lua, which does less for it. 64 connections, {date}: compare the "
        "figures with each\n"
        "other, because they change with the machine. [docs/benchmarks.md](docs/benchmarks.md) has "
        "all of them."
    ),
    "README.zh-CN.md": (
        "越短越好：图中是一次会话检查消耗的 CPU 时间（微秒）。会话在进程内的缓存中时，wxlogind 为 {memory}；同样的检查，nginx + Lua 为 "
        "{nginx}，\n"
        "Go 为 {go}，Node 为 {node}（三者每次检查都访问 Redis）。"
        "以 TLS 连接微信时，wxlogind 一次登录的 CPU 是 nginx + Lua 的 {ratio} "
        "倍，而 nginx + Lua 做的事更少。测试条件：64 个连接，\n"
        "{date}。换一台机器，数字就会不同，请只用来相互比较。全部数据见 [docs/zh/benchmarks.md](docs/zh/benchmarks.md)。"
    ),
}


def median(rounds, name, figure, form=".1f"):
    found = [r[figure] for r in rounds.get(name, []) if r]
    return format(statistics.median(found), form) if found else "-"


def for_readme(run, language):
    last, login = run["runs"][-1], next(
        g for g in goals.RATIOS if g.race == "login-tls" and g.ours == peers.WXLOGIND
    )
    found = goals.ratios(login, last[login.race])
    names = {"memory": peers.MEMORY, "nginx": peers.NGINX, "go": peers.GO, "node": peers.NODE}
    return language.format(
        **{key: median(last["auth"], name, "cpu_us") for key, name in names.items()},
        date=run["machine"].split(",")[0],
        ratio=f"{statistics.median(found):.2f}" if found else "-",
    )


def table(header, rows):
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def goals_table(run):
    """Its header, and its rows."""
    return ("goal", "at most", "stands at", ""), [
        (title, most, found, "reached" if ok else "not reached")
        for title, most, found, ok in goals.rows(run["runs"], run.get("instructions", {}))
    ]


def for_benchmarks(run):
    parts = [
        f"{run['machine']}. Runs, one after the other: {len(run['runs'])}; the median of each, and "
        "its least and greatest round.\n"
        "Reached is what is reached in the worst round of all."
    ]
    parts.append(table(*goals_table(run)))
    for name, title in (
        ("auth", "auth"),
        ("login-http", "login over HTTP"),
        ("login-tls", "login over TLS"),
    ):
        last = run["runs"][-1][name]
        rows = [
            (
                who, median(last, who, "cpu_us"), median(last, who, "busy", ".0%"),
                median(last, who, "redis_us"),
            )
            for who in last
        ]
        parts.append(
            table((f"{title}, for each request", "CPU µs", "its core busy", "Redis' CPU µs"), rows)
        )
    parts.append(
        "![CPU for each check](benchmarks/auth.svg)\n\n![CPU for each login](benchmarks/login.svg)"
    )
    for workers in (1, 2):
        found = run.get(f"scale-{workers}", {})
        sizes = next(iter(found.values()))["sizes"] if found else []
        rows = [
            (kind, *f["cells"], " / ".join(f"{mb:.0f}" for mb in f["rss_mb"]))
            for kind, f in found.items()
        ]
        header = (
            f"workers = {workers}: CPU µs for each request, by connections",
            *(f"{n:,}" for n in sizes), "RSS MB: before / most / after",
        )
        parts.append(table(header, rows))
    parts.append(
        "In brackets: the share of requests not answered 200. Beyond `login_queue` logins are told "
        "503 `overloaded`."
    )
    return "\n\n".join(parts)


def texts(directory):
    """File of the project -> what stands between its two marks."""
    run = json.loads((directory / "run.json").read_text())
    return {
        "docs/benchmarks.md": for_benchmarks(run),
        **{name: for_readme(run, language) for name, language in LANGUAGES.items()},
    }


def filled(page, text):
    before, mark, rest = page.partition(BEGIN)
    assert mark and END in rest, "a page has lost its marks"
    return f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"


def write(directory):
    """The Chinese pages say as much as before of the English ones, whose figures alone are new."""
    for name, text in texts(directory).items():
        file = ROOT / name
        file.write_text(filled(file.read_text(), text))
    subprocess.run(
        [
            ROOT / "scripts/zh-touch",
            *(ROOT / name for name in ("README.zh-CN.md", "docs/zh/benchmarks.md")),
        ],
        check=True,
    )


if __name__ == "__main__":
    write(ROOT / "docs/benchmarks")
