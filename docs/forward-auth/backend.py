#!/usr/bin/env python3
"""A backend behind one of the proxies here. It reads the caller from the headers as code written
for WeChat cloud hosting does.

    backend.py [[ADDRESS:]PORT]        listens on 127.0.0.1:3000 unless told

It believes the headers: nobody but the proxy may reach it.
"""
import hashlib
import http.server
import json
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer leaves in one piece

    def handle_any(self):
        body = self.read_body()
        openid = self.headers.get("X-WX-OPENID")  # the case does not matter
        if not self.headers.get("X-WX-SOURCE") or not openid:
            self.answer(
                403,
                {
                    "error": "no_caller",
                    "message": "There is no X-Wx-Openid: is the proxy in front?",
                },
            )
        elif self.path == "/api/wx_openid":  # as in WeChat's templates
            self.answer(200, openid)
        else:
            self.answer(200, {
                "openid": openid,
                "appid": self.headers.get("X-WX-APPID"),
                "unionid": self.headers.get("X-WX-UNIONID") or None,  # none, or empty: not known
                "method": self.command,
                "path": self.path,
                "headers": self.headers.items(),
                "body": {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()},
            })

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return body

    def answer(self, status, what):
        text = what if isinstance(what, str) else json.dumps(what)
        self.send_response(status)
        self.send_header(
            "Content-Type",
            "text/plain; charset=utf-8" if isinstance(what, str) else "application/json",
        )
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())


if __name__ == "__main__":
    address, _, port = (sys.argv[1] if len(sys.argv) > 1 else "3000").rpartition(":")
    http.server.ThreadingHTTPServer((address or "127.0.0.1", int(port)), Handler).serve_forever()
