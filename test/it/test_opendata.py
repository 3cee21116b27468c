"""Open data: WeChat's published vectors through HTTP, and what wxfake encrypts for a user."""
import base64
import contextlib
import hashlib
import json
import socket
import subprocess
import threading

import pytest

from conftest import APPID, SECRET, poll

PAGE_APP = "wx4f4bc4dec97d474b"
V1_KEY, V1_IV = "tiihtNczf5v6AKRyjwEUhQ==", "r7BXXKkLb8qrSNn05n0qiA=="
V1 = (
    "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdb"
    "B+3hVbJSRgv+4lGOETKUQz6OYStslQ142d"
    "NCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJ"
    "Xwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn"
    "/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJA"
    "YB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns"
    "/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCp"
    "oG20f0a04COwfneQAGGwd5oa+T8yO5hzuy"
    "Db/XcxxmK01EpqOyuxINew=="
)
OTHER_KEY, OTHER_IV = "HyVFkGl5F5OQWJZZaNzBBg==", "AAECAwQFBgcICQoLDA0ODw=="
V5 = (
    "A9tSD1UlZPDo99Jgs8ev5ckAzt0m4Vu087o89x1K+AbcTp8BFMvHPI6c+cqln+OrMEcpfCrpdVB+z+Q4QKNH/8GpUYh9kn"
    "geQi1IyoDq/+KC6Yh2jZydVDhHiYs4"
    "iYJ6egpiCC8VLkgLpY75JX6otQpayoUhfmEkxIKPvaVcq2D/9mNlvXQ/6EnBlqWVtCVHWBxbpWt62wMOA4G5ggR1Hg=="
)
V2_RAW = (
    '{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","co'
    'untry":"CN","avatarUrl":'
    '"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiayc'
    'AjAtpujxyzYsrztuuICqIM5ibXQ/0"}'
)
V2_SIGNATURE = "75e81ceda165f4ffa64f4068af58c64b8f54b88c"
V8_RAW = (
    '{"nickName":"小明🐼","gender":0,"language":"zh_CN","city":"","province":"","country":"","avatarUr'
    'l":""}'
)
V8_SIGNATURE = "95a652c9e116c1f84a7a2f1370e6277b077ac23b"


def ask(server, token, body):
    return server.call("POST", "/v1/open-data", body, {"Authorization": f"Bearer {token}"})


@pytest.fixture
def known(stack, redis):
    """A user of the app of WeChat's page, with a given session_key and openid."""
    def make(session_key, openid="oGZUI0egBJY1zhBYw2KhdUfwVJJE", appid=PAGE_APP):
        wxfake = stack.wxfake("--app", f"{appid}:secret-of-the-page")
        server = stack.server(
            redis, wxfake, session__encryption_key="",
            **{f"app_{appid}__secret": "secret-of-the-page"},
        )
        a = wxfake.call(
            "POST", "/fake/user", {"appid": appid, "openid": openid, "session_key": session_key}
        )
        assert a.status == 204, a
        code = wxfake.call("POST", "/fake/code", {"appid": appid, "openid": openid}).json["code"]
        return server, server.login(code, appid=appid).token
    return make


def test_the_published_vector(known):
    server, token = known(V1_KEY)
    a = ask(server, token, {"encryptedData": V1, "iv": V1_IV})
    assert a.status == 200 and a.json["data"]["nickName"] == "Band"
    assert set(a.json["data"]) == {
        "nickName", "gender", "language", "city", "province", "country", "avatarUrl",
    }
    # what forms, and WeChat's own JSON, make of it
    for text in (V1.replace("+", " "), V1.replace("/", "\\/")):
        body = json.dumps({"encryptedData": "@@", "iv": V1_IV}).replace("@@", text)
        assert (
            server.call(
                "POST", "/v1/open-data", body,
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            ).status == 200
        )


# the wrong key: bad padding
# the wrong iv: no JSON
# another app's watermark
# another user's
# no multiple of a block
@pytest.mark.parametrize("key, openid, appid, data, iv", [
    (OTHER_KEY, "oGZUI0egBJY1zhBYw2KhdUfwVJJE", PAGE_APP, V1, V1_IV),
    (V1_KEY, "oGZUI0egBJY1zhBYw2KhdUfwVJJE", PAGE_APP, V1, OTHER_IV),
    (V1_KEY, "oGZUI0egBJY1zhBYw2KhdUfwVJJE", "wx0000000000000000", V1, V1_IV),
    (V1_KEY, "oGZUI0egBJY1zhBYw2KhdUfwXXXX", PAGE_APP, V1, V1_IV),
    (V1_KEY, "oGZUI0egBJY1zhBYw2KhdUfwVJJE", PAGE_APP, V1[:-24], V1_IV),                  # cut
    (V1_KEY, "oGZUI0egBJY1zhBYw2KhdUfwVJJE", PAGE_APP, V1[4:], V1_IV),
    (V1_KEY, "oGZUI0egBJY1zhBYw2KhdUfwVJJE", PAGE_APP, "not base64!", V1_IV),
    (V1_KEY, "oGZUI0egBJY1zhBYw2KhdUfwVJJE", PAGE_APP, V1, "AAEC"),
])
def test_one_error_for_all_that_does_not_open(known, key, openid, appid, data, iv):
    server, token = known(key, openid, appid)
    a = ask(server, token, {"encryptedData": data, "iv": iv})
    assert (a.status, a.error) == (400, "decrypt_failed")
    assert a.json["message"] == "encryptedData does not decrypt under this session's key."


def test_phone_numbers_of_the_old_way(known):
    server, token = known(OTHER_KEY)
    a = ask(server, token, {"encryptedData": V5, "iv": OTHER_IV})
    assert a.json == {
        "data": {
            "phoneNumber": "13580006666", "purePhoneNumber": "13580006666", "countryCode": "86",
        }
    }


@pytest.mark.parametrize("raw, signature", [(V2_RAW, V2_SIGNATURE), (V8_RAW, V8_SIGNATURE)])
def test_signatures(known, raw, signature):
    server, token = known(OTHER_KEY)
    a = ask(server, token, {"rawData": raw, "signature": signature})
    assert a.status == 200 and a.json["data"] == json.loads(raw)
    for wrong in (
        signature.upper(), signature[:-1] + "0" if signature[-1] != "0" else signature[:-1] + "1",
        "x", signature + "0",
    ):
        assert (
            ask(server, token, {"rawData": raw, "signature": wrong}).error == "signature_mismatch"
        )
    assert (
        ask(server, token, {"rawData": raw + " ", "signature": signature}).error
        == "signature_mismatch"
    )
    assert (
        ask(
            server, token,
            {"rawData": raw, "signature": signature, "encryptedData": V1, "iv": V1_IV},
        ).error == "decrypt_failed"
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"encryptedData": V1},
        {"iv": V1_IV},
        {"rawData": "{}"},
        {"signature": "x"},
        {"encryptedData": V1, "iv": V1_IV, "rawData": "{}"},
        {"encryptedData": 1, "iv": V1_IV},
        {"encryptedData": "", "iv": V1_IV},
        [], "text",
    ],
)
def test_bad_bodies(server, wxfake, body):
    token = server.login(wxfake.code()).token
    a = ask(server, token, body if isinstance(body, (dict, list)) else body.encode())
    assert (a.status, a.error) == (400, "invalid_request")
    assert ask(server, "A" * 43, {"encryptedData": V1, "iv": V1_IV}).error == "invalid_session"


def encrypted(wxfake, openid, data):
    return wxfake.call(
        "POST", "/fake/encrypt", {"appid": APPID, "openid": openid, "data": data}
    ).json


@pytest.mark.parametrize("sealed", [True, False])
def test_rotation(stack, redis, wxfake, sealed):
    """Data under the older key opens through either of the user's sessions; under one older still
    it does not."""
    server = stack.server(redis, wxfake, **({} if sealed else {"session__encryption_key": ""}))
    openid, tokens, sets = "oTestRotation", [], []
    for i in range(3):
        tokens.append(server.login(wxfake.code(openid=openid)).token)
        sets.append(encrypted(wxfake, openid, {"n": i}))
        wxfake.call("POST", "/fake/expire", {"openid": openid})
    for token in tokens:
        for i, e in enumerate(sets):
            a = ask(server, token, {"encryptedData": e["encryptedData"], "iv": e["iv"]})
            assert a.json == {"data": {"n": i}} if i else a.error == "decrypt_failed"
            b = ask(server, token, e)
            assert b.status == 200 if i else b.error in ("signature_mismatch", "decrypt_failed")


def test_encryption_keys_rotate(stack, redis, wxfake):
    """What the key before sealed still opens once a new one stands before it; without it, it does
    not."""
    old, new = "11" * 32, "22" * 32
    openid = "oTestEncryptionKeys"
    first = stack.server(redis, wxfake, session__encryption_key=old)
    token = first.login(wxfake.code(openid=openid)).token
    e = encrypted(wxfake, openid, {"x": 1})
    both = stack.server(redis, wxfake, session__encryption_key=f"{new}, {old}")
    assert ask(both, token, e).status == 200
    only = stack.server(redis, wxfake, session__encryption_key=new)
    assert (
        ask(only, token, {"encryptedData": e["encryptedData"], "iv": e["iv"]}).error
        == "decrypt_failed"
    )
    assert "cannot be decrypted" in only.process.text()


def test_check_wechat(server, wxfake):
    openid = "oTestCheckWechat"
    token = server.login(wxfake.code(openid=openid)).token

    def check(query="?check=wechat"):
        return server.call(
            "GET", "/v1/session" + query, headers={"Authorization": f"Bearer {token}"}
        )
    a = check()
    assert a.status == 200 and a.json["session_key_valid"] is True and a.json["appid"] == APPID
    wxfake.call("POST", "/fake/expire", {"openid": openid})
    assert check().json["session_key_valid"] is False
    assert check("?check=other").error == "invalid_request"
    assert "session_key_valid" not in check("").json
    wxfake.fault(api="checksession", mode="errcode", errcode=42001, count=1)
    assert check().json["session_key_valid"] is False and wxfake.calls("checksession") == 4
    wxfake.fault(api="checksession", mode="errcode", errcode=45011, count=1)
    assert (check().status, check().status) == (429, 200)


def test_nothing_of_it_reaches_the_log(server, wxfake):
    openid = "oTestOpenDataLog"
    token = server.login(wxfake.code(openid=openid)).token
    e = encrypted(
        wxfake, openid, {"phoneNumber": "13912345678", "openId": openid, "unionId": "uSecretUnion"}
    )
    a = ask(server, token, e)
    assert a.json == {"data": {"phoneNumber": "13912345678"}}
    for secret in (
        "13912345678", openid, "uSecretUnion", hashlib.sha256(SECRET.encode()).hexdigest(),
    ):
        assert secret not in server.process.text()


def test_what_ended_while_wechat_was_asked(server, wxfake):
    """A session that was logged out meanwhile is not said to live."""
    session = server.login(wxfake.code()).token
    wxfake.fault(api="checksession", mode="slow", delay_ms=1000)
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(
            server.call(
                "GET", "/v1/session?check=wechat", headers={"Authorization": f"Bearer {session}"}
            )
        )
    )
    asking.start()
    poll(lambda: wxfake.calls("checksession") == 1, what="the question")
    assert server.session(session, "DELETE").status == 204
    asking.join()
    assert (answers[0].status, answers[0].json.get("reason")) == (401, "logged_out"), answers


class SlowAnswers:
    """Stands before Redis. Holds back what Redis answers from when a command names `word` until
    let_go; held: there is such an answer."""

    def __init__(self, redis):
        self.redis, self.word, self.asked, self.held, self.go = (
            redis, None, False, threading.Event(), threading.Event(),
        )
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, far = self.server.accept()[0], socket.create_connection(
                    ("127.0.0.1", self.redis.port)
                )
                for pair in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self.pump, args=pair, daemon=True).start()

    def pump(self, source, sink, asks):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if asks and self.word and self.word in piece:
                    self.asked = True
                if not asks and self.asked:
                    self.held.set()
                    self.go.wait(20)
                sink.sendall(piece)
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def let_go(self):
        self.go.set()


def test_data_of_a_session_that_ended_meanwhile(stack, redis, wxfake):
    """The session_keys are on their way from Redis when the session is ended elsewhere: what they
    open is not told."""
    slow = SlowAnswers(redis)
    server, other = stack.server(
        slow, wxfake, redis__timeout="10s", session__cache_entries="0"
    ), stack.server(redis, wxfake)
    openid, answers = "oTestEndedMeanwhile", []
    token = server.login(wxfake.code(openid=openid)).token
    e = encrypted(wxfake, openid, {"n": 1})
    assert ask(server, token, e).status == 200
    slow.word = hashlib.sha1(f"{APPID}:{openid}".encode()).hexdigest()[:16].encode()
    asking = threading.Thread(target=lambda: answers.append(ask(server, token, e)))
    asking.start()
    assert slow.held.wait(10)
    assert other.session(token, "DELETE").status == 204
    slow.let_go()
    asking.join()
    assert (answers[0].status, answers[0].json.get("reason")) == (401, "logged_out"), answers


def forged(e, key):
    """encryptedData cut and given another iv by somebody who knows what stands in its first block,
    but not the key."""
    data = base64.b64decode(e["encryptedData"])
    plain = subprocess.run(
        [
            "openssl", "enc", "-d", "-aes-128-cbc", "-K", base64.b64decode(key).hex(), "-iv",
            base64.b64decode(e["iv"]).hex(),
        ],
        input=data, capture_output=True, check=True,
    ).stdout
    at = plain.index(b'~~~~') // 16 * 16 + 16  # a block within the filling
    want = b'{          "a":"'
    iv = bytes(a ^ b ^ c for a, b, c in zip(data[at - 16:at], plain[at:at + 16], want))
    return {
        "encryptedData": base64.b64encode(data[at:]).decode(), "iv": base64.b64encode(iv).decode(),
    }


def test_nothing_of_encrypted_data_is_kept(stack, redis, wxfake):
    """It has no MAC: a user can make it say any unionId. What the row has comes from logins
    alone."""
    server = stack.server(redis, wxfake, users__url=f"sqlite://{stack.dir}/users.db")
    openid = "oTestForged"
    token = server.login(wxfake.code(openid=openid)).token
    before = server.inside("GET", f"/internal/apps/{APPID}/users/{openid}").json
    key = [k for o, k in zip(wxfake.openids, wxfake.session_keys()) if o == openid][0]
    e = encrypted(wxfake, openid, {"nickName": "~" * 64, "openId": openid, "unionId": "oVICTIM"})
    assert ask(server, token, e).status == 200
    a = ask(server, token, forged(e, key))
    # it opens: nothing can tell that it was changed
    assert a.status == 200 and "nickName" not in a.json["data"], a
    assert server.inside("GET", f"/internal/apps/{APPID}/users/{openid}").json == before
