import sys, time, socket
sys.path.insert(0, "/work/main/test/it")
from test_proxies import *
from conftest import *

def raw(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(data); s.settimeout(3); out=b""
        try:
            while p := s.recv(65536): out += p
        except TimeoutError: pass
        return out

def test_scratch(proxies, stack, redis, wxfake, backend):
    server = stack.server(redis, wxfake, server__client_timeout="2s")
    proxy = proxies(auth=server.internal, login=server.port, backend=backend.port)
    t = server.login(wxfake.code()).token
    r = {}
    r["upgrade"] = raw(proxy.port, f"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {t}\r\n\r\n".encode())[:40]
    r["upgrade401"] = raw(proxy.port, f"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())[:40]
    r["expect"] = raw(proxy.port, f"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\nAuthorization: Bearer {t}\r\n\r\nabc".encode())[:300]
    r["two"] = raw(proxy.port, f"GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {t}\r\nAuthorization: Bearer {'A'*43}\r\n\r\n".encode())[:40]
    r["twots"] = raw(proxy.port, f"GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Third-Session: {t}\r\nX-Third-Session: {'A'*43}\r\n\r\n".encode())[:40]
    r["1.0"] = raw(proxy.port, f"GET /e HTTP/1.0\r\nAuthorization: Bearer {t}\r\n\r\n".encode())[:40]
    r["long auth"] = raw(proxy.port, f"GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {'A'*8100}\r\n\r\n".encode())[:40]
    r["long cookie"] = raw(proxy.port, f"GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {'A'*8100}\r\nAuthorization: Bearer {t}\r\n\r\n".encode())[:40]
    r["long uri"] = raw(proxy.port, f"GET /{'A'*8000} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {t}\r\n\r\n".encode())[:40]
    r["many"] = raw(proxy.port, ("GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + "".join(f"H{i}: x\r\n" for i in range(95)) + f"Authorization: Bearer {t}\r\n\r\n").encode())[:40]
    r["trailer"] = raw(proxy.port, f"POST /t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Wx-Openid\r\nConnection: close\r\nAuthorization: Bearer {t}\r\n\r\n3\r\nabc\r\n0\r\nX-Wx-Openid: forged\r\n\r\n".encode())
    r["trailer"] = (r["trailer"][:20], b"forged" in r["trailer"])
    st=[]
    for i in range(5):
        time.sleep(2.0 + i*0.01); a=proxy.call("GET","/idle",token=t); st.append((a.status, round(a.seconds,2)))
    r["idle"]=st
    sts = collections.Counter()
    def w():
        for _ in range(200): sts[proxy.call("GET","/p",token=t).status]+=1
    th=[threading.Thread(target=w) for _ in range(8)]; b=time.monotonic(); [x.start() for x in th]; [x.join() for x in th]
    r["load"]=(dict(sts), time.monotonic()-b)
    print(proxy.kind); 
    for k,v in r.items(): print("  ",k,v)
