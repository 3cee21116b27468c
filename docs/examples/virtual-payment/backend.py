"""Virtual payment: what a backend does for wx.requestVirtualPayment. Nothing but Python.

WeChat wants two signatures. One is made with the AppKey of virtual payment, which this backend has.
The other is made with the user's session_key, which only wxlogind has: it signs, and keeps the key.

WXLOGIND            http://127.0.0.1:8081, wxlogind's internal side
WX_INTERNAL_TOKEN   its token
WX_APPID            the mini program
WX_OFFER_ID         of virtual payment, from WeChat's console
WX_APP_KEY          of virtual payment, from WeChat's console: a secret
PORT                where to listen on 127.0.0.1 (3000)
"""
import hashlib
import hmac
import http.server
import json
import os
import secrets
import urllib.error
import urllib.parse
import urllib.request

ENV = 1  # 0 production, 1 WeChat's sandbox


def wxlogind(method, path, body=None, kind="application/octet-stream"):
    ask = urllib.request.Request(
        os.environ["WXLOGIND"] + path,
        body,
        {"X-Internal-Token": os.environ["WX_INTERNAL_TOKEN"], "Content-Type": kind},
        method=method,
    )
    with urllib.request.urlopen(ask, timeout=12) as answer:
        return json.load(answer)


def openid_of(headers):
    token = headers.get("Authorization", "").removeprefix("Bearer ")
    form = urllib.parse.urlencode({"token": token}).encode()
    session = wxlogind(
        "POST", "/internal/introspect", form, "application/x-www-form-urlencoded"
    )
    return session["sub"] if session["active"] else None


def user_path(openid):
    appid = os.environ["WX_APPID"]
    return f"/internal/apps/{appid}/users/{urllib.parse.quote(openid, safe='')}"


def user_signature(openid, text):
    """With the user's session_key."""
    return wxlogind("POST", user_path(openid) + "/sign", text.encode())["signature"]


def app_signature(uri, text):
    """With the AppKey."""
    key = os.environ["WX_APP_KEY"].encode()
    return hmac.new(key, f"{uri}&{text}".encode(), hashlib.sha256).hexdigest()


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def order(openid, coins):
    """What the phone hands to wx.requestVirtualPayment, as it is: the signatures are of these
    bytes."""
    sign_data = compact(
        {
            "offerId": os.environ["WX_OFFER_ID"],
            "buyQuantity": coins,
            "env": ENV,
            "currencyType": "CNY",
            "outTradeNo": "order-" + secrets.token_hex(12),
            "attach": "coins",
        }
    )
    return {
        "mode": "short_series_coin",
        "signData": sign_data,
        "paySig": app_signature("requestVirtualPayment", sign_data),
        "signature": user_signature(openid, sign_data),
    }


def xpay(call, openid, **more):
    """A call of WeChat's server side. wxlogind adds the access_token."""
    uri = f"/xpay/{call}"
    body = compact({"openid": openid, "env": ENV, "user_ip": "127.0.0.1", **more})
    signatures = urllib.parse.urlencode(
        {"pay_sig": app_signature(uri, body), "signature": user_signature(openid, body)}
    )
    path = f"/internal/apps/{os.environ['WX_APPID']}/wechat{uri}?{signatures}"
    return wxlogind("POST", path, body.encode(), "application/json")


def balance(openid, _):
    return xpay("query_user_balance", openid)


def spend(openid, asked):
    """The order's number makes it safe to repeat: WeChat takes the coins once."""
    return xpay("currency_pay", openid, amount=asked["coins"], order_id=asked["order"],
                payitem="item", remark="")


def give_back(openid, asked):
    return xpay("cancel_currency_pay", openid, amount=asked["coins"],
                pay_order_id=asked["order"], order_id=asked["order"] + "-back")


CALLS = {
    "/order": lambda openid, asked: order(openid, asked["coins"]),
    "/balance": balance,
    "/spend": spend,
    "/give-back": give_back,
}


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.path not in CALLS:
            return 404, {}
        openid = openid_of(self.headers)
        if not openid:
            return 401, {"error": "invalid_session"}
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        return 200, CALLS[self.path](openid, asked)

    def do_POST(self):
        try:
            status, body = self.answer()
        except urllib.error.HTTPError as e:  # 404: no session of the user lives any more
            status, body = (401, {"error": "invalid_session"}) if e.code == 404 else (502, {})
        except (KeyError, TypeError, ValueError):
            status, body = 400, {}
        except OSError:
            status, body = 503, {}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(
        ("127.0.0.1", int(os.environ.get("PORT", 3000))), Handler
    ).serve_forever()
