"""Keeps users' pictures: an example of a backend to which a mini program uploads a file.

    AVATAR_DIR=/var/lib/avatars AVATAR_URL=https://api.example.com python3 avatar.py 127.0.0.1:3000

POST /avatar  a form with one file, as common.uploadFile sends it; answers {"url": "https://…"}
GET /avatar/… the picture

A proxy stands before it that asks wxlogind who is calling (docs/forward-auth.md), so X-Wx-Openid is
the user. GET /avatar/… is for everybody. Only what is a JPEG, a PNG or a WebP by its first bytes is
kept, at most 1 MB, and one picture for each user and app.
"""
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import re
import sys
from email.parser import BytesParser
from email.policy import HTTP

MAX_BYTES = 1 << 20
DRAIN_BYTES = 8 << 20
KINDS = {"jpg": (b"\xff\xd8\xff", "image/jpeg"), "png": (b"\x89PNG\r\n\x1a\n", "image/png"),
         "webp": (b"RIFF", "image/webp")}
FOLDER = pathlib.Path(os.environ.get("AVATAR_DIR", "avatars"))
PUBLIC = os.environ.get("AVATAR_URL", "http://127.0.0.1:3000").rstrip("/")


def kind_of(data):
    for kind, (magic, _) in KINDS.items():
        if data.startswith(magic) and (kind != "webp" or data[8:12] == b"WEBP"):
            return kind
    return None


def file_of(content_type, body):
    """The first file of a multipart/form-data body, or None."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    for part in message.iter_parts() if message.is_multipart() else ():
        if part.get_filename():
            return part.get_payload(decode=True)
    return None


def secret():
    """A name of a picture must not tell an openid, nor be guessed from one."""
    path = FOLDER / ".secret"
    if not path.exists():
        path.write_bytes(os.urandom(32))
        path.chmod(0o600)
    return path.read_bytes()


def keep(user, data, kind):
    """Stores the picture in place of the user's older one, and gives its name."""
    name = hmac.new(secret(), user.encode(), hashlib.sha256).hexdigest()[:32]
    version = hashlib.sha256(data).hexdigest()[:8]  # another picture has another address: caches
    for old in FOLDER.glob(f"{name}-*"):
        old.unlink()
    path = FOLDER / f"{name}-{version}.{kind}"
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.rename(path)
    return path.name


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def answer(self, status, body, content_type="application/json", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, error, message, unread=0):
        """A client that is still sending its body would not read the answer: so the body is read,
        within reason."""
        unread = min(unread, DRAIN_BYTES)
        while unread > 0 and (piece := self.rfile.read(min(unread, 1 << 16))):
            unread -= len(piece)
        self.close_connection = True
        self.answer(status, {"error": error, "message": message}, Connection="close")

    def do_POST(self):
        openid, appid = self.headers.get("X-Wx-Openid"), self.headers.get("X-Wx-Appid")
        given = self.headers.get("Content-Length", "")
        length = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0
        if self.path != "/avatar":
            return self.refuse(404, "not_found", "No such endpoint.", length)
        if not openid or not appid:
            why = "No X-Wx-Openid: is the proxy in between?"
            return self.refuse(401, "unauthorized", why, length)
        if length > MAX_BYTES:
            why = f"A picture has at most {MAX_BYTES} bytes."
            return self.refuse(413, "too_large", why, length)
        data = file_of(self.headers.get("Content-Type", ""), self.rfile.read(length))
        kind = kind_of(data or b"")
        if not kind:
            return self.refuse(400, "invalid_request", "A form with a JPEG, PNG or WebP is needed.")
        return self.answer(200, {"url": f"{PUBLIC}/avatar/{keep(f'{appid} {openid}', data, kind)}"})

    def do_GET(self):
        found = re.fullmatch(r"/avatar/([0-9a-f]{32}-[0-9a-f]{8}\.(jpg|png|webp))", self.path)
        path = FOLDER / found[1] if found else None
        if not path or not path.exists():
            return self.refuse(404, "not_found", "No such picture.")
        return self.answer(200, path.read_bytes(), KINDS[found[2]][1],
                           Cache_Control="public, max-age=31536000, immutable")


def main():
    host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:3000").rsplit(":", 1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
