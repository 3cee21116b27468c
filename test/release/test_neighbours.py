"""What one version has made, the other knows; what one has ended, is ended for the other. Both
ways: an upgrade, and a rollback. test/release/neighbours builds the older one and runs this."""
import os
import pathlib
import threading
from unittest import mock

import pytest

import conftest
from conftest import (  # noqa: F401 (the fixtures are used by their names)
    APPID, empty_mariadb, poll, redis, shared_mariadb, stack, wxfake)

OLDER = pathlib.Path(os.environ["WXLOGIND_OLDER"]).parent
OPENID = "oOfTwoVersions"


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request, stack):
    if request.param == "sqlite":
        return f"sqlite://{stack.dir}/users.db"
    return request.getfixturevalue("shared_mariadb").database()


@pytest.fixture(params=["older first", "newer first"])
def pair(request, stack, redis, wxfake, url):
    """The second starts on what the first has made."""
    def make(**config):
        both = {}
        for age in request.param.split()[0], *({"older", "newer"} - {request.param.split()[0]}):
            with mock.patch.object(conftest, "BUILD", OLDER if age == "older" else conftest.BUILD):
                both[age] = stack.server(redis, wxfake, users__url=url, **config)
            poll(
                lambda: both[age].metric("wxlogind_users_up") == 1, what="the user database is open"
            )
        assert (
            both["older"].process.text()
            and len({s.process.proc.args[0] for s in both.values()}) == 2
        )
        return list(both.values())
    servers = []
    yield lambda **config: servers.extend(make(**config)) or servers
    for s in servers:
        s.phones.clear()  # the older one writes them in clear


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def code(wxfake, **kw):
    return wxfake.code(openid=OPENID, **kw)


def test_sessions(pair, wxfake):
    """Both answer for both sessions, from memory the second time; an end is an end for both, and so
    is the end of all."""
    a, b = pair()
    first, second, third = (s.login(code(wxfake)).token for s in (a, b, a))
    for token in (first, second, third):
        for s in (a, b, a, b):
            assert s.auth(token).headers["X-Wx-Openid"] == OPENID
            assert s.session(token).status == 200
    assert b.session(first, "DELETE").status == 204
    assert a.session(second, "DELETE").status == 204
    for token in (first, second):
        for s in (a, b):
            poll(lambda: s.auth(token).status == 401, seconds=5, what="ended")
    listed = [s.inside("GET", f"/internal/apps/{APPID}/users/{OPENID}/sessions") for s in (a, b)]
    assert [len(one.json["sessions"]) for one in listed] == [1, 1], listed
    assert b.inside("DELETE", f"/internal/apps/{APPID}/users/{OPENID}/sessions").status in (
        200, 204,
    )
    for s in (a, b):
        poll(lambda: s.auth(third).status == 401, seconds=5, what="all ended")


def test_one_device(pair, wxfake):
    a, b = pair(session__max_per_user=1)
    for one, other in ((a, b), (b, a)):
        old = one.login(code(wxfake)).token
        assert one.auth(old).status == other.auth(old).status == 200
        new = other.login(code(wxfake)).token
        for s in (a, b):
            poll(lambda: s.auth(old).status == 401, seconds=5, what="the older session ended")
            assert s.auth(new).status == 200


def test_one_code(pair, wxfake):
    """Sent to both at once, and again: WeChat is asked once, and all get the same session."""
    servers = pair()
    for _ in range(10):
        c, before, said = code(wxfake), wxfake.calls(), []
        threads = [
            threading.Thread(target=lambda s=s: said.append(s.login(c))) for s in servers * 2
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        said += [s.login(c) for s in servers]
        assert {x.status for x in said} == {200} and len({x.token for x in said}) == 1, said
        assert wxfake.calls() == before + 1


def test_session_keys(pair, wxfake):
    """Open data of a session that the other has made."""
    a, b = pair()
    for one, other in ((a, b), (b, a)):
        token = one.login(code(wxfake)).token
        sealed = wxfake.call("POST", "/fake/encrypt", {"openid": OPENID, "data": {"steps": 7}}).json
        for s in (one, other):
            got = s.call(
                "POST", "/v1/open-data",
                {k: sealed[k] for k in ("encryptedData", "iv")},
                bearer(token),
            )
            assert got.status == 200 and got.json["data"]["steps"] == 7, got


def test_access_token(pair, wxfake):
    """One is fetched, for both."""
    for s in pair():
        token = s.login(code(wxfake)).token
        assert (
            s.call(
                "POST", "/v1/user/phone", {"code": code(wxfake, kind="phone")}, bearer(token)
            ).status == 200
        )
    assert wxfake.calls("stable_token") == 1


def test_users(pair, wxfake):
    """Profiles: what one writes, the other reads. A phone number that the older one has, the newer
    one has, too; and it keeps its own when the older one writes. (The older one may not know one
    that is encrypted at rest.)"""
    a, b = pair()
    for n, (one, other) in enumerate(((a, b), (b, a))):
        login = one.login(code(wxfake))
        assert login.json["new_user"] is (n == 0)
        assert one.call("PUT", "/v1/user", {"nickName": f"n{n}"}, bearer(login.token)).status == 200
        assert other.call("PUT", "/v1/user", {"city": f"c{n}"}, bearer(login.token)).status == 200
        for s in (a, b):
            got = s.call("GET", "/v1/user", None, bearer(login.token)).json
            assert (got["nickName"], got["city"]) == (f"n{n}", f"c{n}")
    older, newer = sorted(
        (a, b), key=lambda s: s.process.proc.args[0] == str(conftest.BUILD / "wxlogind")
    )
    user = f"/internal/apps/{APPID}/users/{OPENID}"
    for one in (older, newer):
        number = one.call(
            "POST", "/v1/user/phone", {"code": code(wxfake, kind="phone")}, bearer(login.token)
        ).json["phoneNumber"]
        assert (
            one.inside("GET", user).json["phoneNumber"]
            == newer.inside("GET", user).json["phoneNumber"]
            == number
        )
        for s in (newer, older):
            assert s.call("PUT", "/v1/user", {"city": "after"}, bearer(login.token)).status == 200
            assert newer.inside("GET", user).json["phoneNumber"] == number
