"""The scripts that Redis runs, by themselves: each as make composes it, against a real Redis."""
import re
import subprocess

import pytest

from conftest import ROOT, poll

STORE = ROOT / "server/store"
SCRIPTS = sorted(p.stem for p in STORE.glob("*.lua") if p.stem != "prelude")
BASE, INDEX, NAME = "s:{AA}:", "u:{AA}", "0123456789abcdef"


def identity(n):
    return f"{n:020d}"


def composed(script):
    return subprocess.run(
        [ROOT / "scripts/lua-compose", STORE / "prelude.lua", STORE / f"{script}.lua"],
        capture_output=True, text=True, check=True,
    ).stdout


@pytest.fixture
def run(redis, tmp_path):
    def run(script, keys=(), *args):
        file = tmp_path / f"{script}.lua"
        file.write_text(composed(script))
        out = redis.cli("--eval", file, *keys, ",", *args)
        assert "ERR" not in out and "Error" not in out, out
        return out.split("\n")[:-1]
    return run


@pytest.fixture
def create(run):
    def create(n, keys="\x01k", unionid="", name=NAME, life=60000, ttl="", most=1000):
        out = run(
            "session_create",
            [BASE + identity(n), INDEX, "m", "b"],
            life, ttl, "wx1|o1|", unionid, "|192.0.2.1|agent|", most, keys, keys, name,
        )
        assert out[:2] == ["1", "0"] and re.fullmatch(r"\d{13}", out[2])
        return out[3:]
    return create


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_carries_what_it_calls_and_nothing_else(script):
    prelude = (ROOT / "server/store/prelude.lua").read_text()
    text = re.sub("--.*", "", composed(script))
    for helper in re.findall(r"local function (\w+)", prelude):
        called, carried = (
            len(re.findall(rf"\b{helper}\(", text)), f"local function {helper}(" in text,
        )
        assert called >= 2 if carried else called == 0, helper


def test_helpers_of_a_block_that_seldom_runs_are_made_in_it():
    text = composed("session_create")
    block = text.index("\nif last or"), text.index("\nend\norder =")
    assert "HELPERS" not in text
    for helper, inside in (("clock_ms", False), ("last_of", False), ("newest", True),
                           ("alive", True), ("sweep", True)):
        at = text.index(f"\nlocal function {helper}(")
        assert (block[0] < at < block[1]) == inside, helper
        assert at < block[1]


def test_create_renew_end(redis, run, create):
    assert create(1) == []
    value = redis.cli("GET", BASE + identity(1))
    assert re.fullmatch(r"\d{13}\|\|\|wx1\|o1\|\|192\.0\.2\.1\|agent\|\x01k\n", value)
    assert redis.cli("ZCARD", INDEX) == "1\n"
    assert run("session_keys", [INDEX], BASE, NAME) == ["k"]
    [life] = run(
        "session_renew", [BASE + identity(1), INDEX], 30000, 3600000, identity(1), BASE, NAME
    )
    assert life == "30000" and 0 < int(redis.cli("PTTL", BASE + identity(1))) <= 30000
    name = redis.cli("EVAL", "return string.sub(redis.sha1hex('wx1:o1'), 1, 16)", 0).strip()
    # not this user's
    assert run("session_end", [BASE + identity(1), INDEX], "revoked", identity(1), BASE, NAME) == [
        "0"
    ]
    assert run("session_end", [BASE + identity(1), INDEX], "logged_out", identity(1), BASE, "") == [
        "1"
    ]
    assert redis.cli("GET", BASE + identity(1)) == "!logged_out\n" and name != NAME
    assert run(
        "session_renew", [BASE + identity(1), INDEX], 30000, 3600000, identity(1), BASE, NAME
    ) == ["!logged_out"]


def test_a_login_changes_the_sessions_before_it(redis, run, create):
    for n in range(3):
        create(n)
    assert create(3, unionid="u") == [identity(n) for n in (2, 1, 0)]  # they have the unionid now
    assert all("|o1|u|192" in redis.cli("GET", BASE + identity(n)) for n in range(4))
    assert create(4, most=2) == [identity(n) for n in range(3)]
    assert redis.cli("GET", BASE + identity(2)) == "!replaced\n" and "|u|" in redis.cli(
        "GET", BASE + identity(4)
    )
    assert run("session_trim", [INDEX], BASE, NAME, 1) == ["0", identity(3)]
    assert run("session_trim", [INDEX], BASE, NAME, 1) == ["0"]


def test_one_script_does_a_bounded_part(redis, run, create):
    """However many sessions a user has: while it runs, Redis serves nobody."""
    create(1)
    redis.cli("EVAL", """
        local value, member = redis.call('GET', KEYS[1]), redis.call('ZRANGE', KEYS[2], 0, 0)[1]
        for i = 2, 20000 do
            local id = string.format('%020d', i)
            redis.call('SET', ARGV[1] .. id, value)
            redis.call('ZADD', KEYS[2], 0, string.sub(member, 1, -21) .. id)
        end""", 2, BASE + identity(1), INDEX, BASE)
    redis.cli("CONFIG", "RESETSTAT")
    assert run("session_trim", [INDEX], BASE, NAME, 1) == [
        "1", *(identity(n) for n in range(1, 251)),
    ]
    calls = re.findall(r"^cmdstat_\w+:calls=(\d+)", redis.cli("INFO", "commandstats"), re.M)
    assert sum(map(int, calls)) < 2000
    assert redis.cli("ZCARD", INDEX) == "19750\n"


def test_list_and_end_user(redis, run, create):
    for n in range(5):
        create(n)
    out = run("session_list", [INDEX], BASE, NAME, 3)
    assert out[::3] == [identity(4), identity(3), identity(2)] and "\x01k" not in out[1]
    assert run("session_end_user", [INDEX], BASE, NAME, "revoked", 3) == [
        identity(n) for n in range(3)
    ]
    assert run("session_end_user", [INDEX], BASE, NAME, "revoked", 3) == [identity(3), identity(4)]
    assert (
        redis.cli("GET", BASE + identity(4)) == "!revoked\n" and redis.cli("EXISTS", INDEX) == "0\n"
    )


def test_who_is_blocked_or_being_erased_makes_no_session(redis, run, create):
    again = lambda: run(
        "session_create",
        [BASE + identity(9), INDEX, "m", "b"],
        60000, "", "wx1|o1|", "", "|a|b|", identity(9), BASE, 9, "\x01k", "\x01k", NAME,
    )
    create(1)
    [now] = run("session_erasing", ["m"], 5000)
    assert (
        re.fullmatch(r"\d{13}", now)
        and again() == ["0", "erasing"]
        and 0 < int(redis.cli("PTTL", "m")) <= 5000
    )
    redis.cli("SET", "e", "keys")
    assert run("session_end_user", [INDEX, "m", "e"], BASE, NAME, "revoked", 1) == [identity(1)]
    assert redis.cli("EXISTS", "m", "e") == "2\n"  # there may be more
    assert (
        run("session_end_user", [INDEX, "m", "e"], BASE, NAME, "revoked", 1) == [""]
        and redis.cli("EXISTS", "m", "e") == "0\n"
    )
    create(2)
    assert run("session_block", [INDEX, "b"], BASE, NAME, 250, 0, 60000) == [identity(2)]
    assert redis.cli("GET", BASE + identity(2)) == "!blocked\n" and again() == ["0", "blocked"]
    redis.cli("SET", "b", int(now) // 1000 + 100)
    assert again() == ["0", "blocked"]
    redis.cli("SET", "b", int(now) // 1000 - 1)  # it is over
    assert again()[:2] == ["1", "0"]


def test_codes(redis, run):
    assert run("code_claim", ["c"], "w1", 5000) == [""]
    assert run("code_claim", ["c"], "w2", 5000) == ["w1"]
    assert run("code_drop", ["c"], "w2") == ["0"] and run("code_drop", ["c"], "w1") == ["1"]
    assert run("code_claim", ["c"], "w2", 5000) == [""]
    assert run("code_settle_refusal", ["c"], "einvalid_code:40029", 5000, "w1") == ["0"]
    assert run("code_settle_refusal", ["c"], "einvalid_code:40029", 5000, "w2") == ["1"]
    assert (
        redis.cli("GET", "c") == "einvalid_code:40029\n" and 0 < int(redis.cli("PTTL", "c")) <= 5000
    )


def test_tokens(redis, run):
    keys = ["t", "t:lock", "t:bad", "t:asked"]

    def look(holder, report="", drop=0, asked_ms=10000):
        value, left, ours, lock = run(
            "token_look", keys, report, drop, holder, 5000, 290000, 300000, asked_ms
        )
        assert not value or 0 < int(left) <= 7200000
        return value, ours, lock

    def save(holder, hash_text="HASH"):
        return run("token_save", keys[:3], holder, hash_text, "token", 7200000)
    assert look("h1") == ("", "1", "")
    assert look("h2") == ("", "0", "h1")
    assert save("h1") == ["0"]
    assert look("h2") == look("h2", "OTHER") == look("h2", "OTHER", 1) == ("HASHtoken", "0", "")
    # doubted: one asks WeChat, who doubts it too waits for that, the others have it; then it is
    # good for a while
    assert look("h2", "HASH") == ("", "1", "")
    assert look("h3", "HASH") == ("", "0", "h2") and look("h4") == ("HASHtoken", "0", "h2")
    assert save("h2") == ["0"]
    assert look("h3", "HASH") == ("HASHtoken", "0", "")
    # to be dropped: nobody has it while it is renewed; where it cannot be, only who wanted it
    # dropped has none
    assert look("h5", "HASH", 1) == ("", "1", "")
    assert look("h6") == look("h6", "HASH") == look("h6", "HASH", 1) == ("", "0", "h5")
    assert save("h5") == ["1"]
    assert run("token_fail", keys[1:3], "h5", "!wechat_error", 60000) == ["0"]
    assert look("h6", "HASH", 1) == ("", "0", "!wechat_error")
    assert look("h6")[0] == look("h6", "HASH")[0] == "HASHtoken"
    redis.cli("DEL", "t:lock", "t:bad", "t:asked")
    assert look("h7", "HASH") == ("", "1", "")  # ten seconds later
    redis.cli("SET", "t", "sealed")
    run("token_forget", ["t"], "another")
    assert redis.cli("GET", "t") == "sealed\n"
    run("token_forget", ["t"], "sealed")
    assert redis.cli("EXISTS", "t") == "0\n"


def test_force(redis, run):
    assert run("token_force", ["f"], 30000, 20) == ["0"]
    assert 0 < int(run("token_force", ["f"], 30000, 20)[0]) <= 30000


def test_a_users_encryption_keys(redis, run, create):
    put = lambda: run("keycache_put", ["e:{AA}:x", INDEX], "sealed", 5000, BASE, NAME)
    assert put() == ["0"] and redis.cli("EXISTS", "e:{AA}:x") == "0\n"  # no session lives
    create(1)
    assert put() == ["1"]
    value, left = run("keycache_get", ["e:{AA}:x"])
    assert value == "sealed" and 0 < int(left) <= 5000
    assert run("keycache_get", ["nothing"]) == ["", "-2"]
