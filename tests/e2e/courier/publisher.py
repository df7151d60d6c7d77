# Publishes documents as servers do that one would rather not meet: each listener says how it treats a
# connection, each path how it treats a request. Its argument is a directory with NAME.pem and NAME.key for
# each certificate, and NAME.json for documents. Prints its ports, and ends with its standard input.

import json, os, socket, ssl, sys, threading, time, warnings

warnings.simplefilter("ignore")  # old versions of TLS are spoken on purpose

os.chdir(sys.argv[1])
HANGS = []


def answer(status, body, headers=""):
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def document(name, media="application/json"):
    with open(f"{name}.json", "rb") as file:
        return answer("200 OK", file.read(), f"Content-Type: {media}\r\n")


def serve(stream):
    head = b""
    while b"\r\n\r\n" not in head:
        part = stream.recv(4096)
        if not part:
            return
        head += part
        if not head.startswith((b"GET ", b"POST ")):  # TLS, where none is spoken
            stream.sendall(answer("400 Bad Request", b""))
            return
    head, form = head.split(b"\r\n\r\n", 1)
    lengths = [line[16:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")]
    while lengths and len(form) < int(lengths[0]):
        form += stream.recv(4096) or 1 / 0
    with open("requests.log", "ab") as log:
        log.write(head + b"\r\n\r\n")
    if form:
        with open("forms.log", "ab") as log:
            log.write(form + b"\n")
    name = head.split()[1].decode().strip("/")
    page = b"<!DOCTYPE html><html><body>Service unavailable</body></html>"
    send = stream.sendall
    if os.path.exists(f"{name}.json"):
        send(document(name))
    elif name == "plain-file":
        send(document("new", "application/octet-stream"))
    elif name == "page":
        send(answer("200 OK", page, "Content-Type: text/html\r\n"))
    elif name == "page-as-json":
        send(answer("200 OK", page, "Content-Type: application/json\r\n"))
    elif name == "500":
        send(answer("500 Internal Server Error", page))
    elif name == "404":
        send(answer("404 Not Found", b"{}"))
    elif name == "204":
        send(b"HTTP/1.1 204 No Content\r\n\r\n")
    elif name == "token":
        send(answer("200 OK", b'{"access_token":"an access token","token_type":"Bearer"}'))
    elif name == "token-large":
        send(answer("200 OK", b'{"access_token":"' + b"a" * 64 * 1024 + b'"}'))
    elif name == "no-token":
        send(answer("200 OK", b'{"token_type":"Bearer"}'))
    elif name == "invalid-client":
        said = b'{"error":"invalid_client","error_description":"what nobody is to read"}'
        send(answer("401 Unauthorized", said, "Content-Type: application/json\r\n"))
    elif name == "odd-error":
        send(answer("400 Bad Request", b'{"error":"\\u001b[31m what nobody is to read"}'))
    elif name == "307":
        send(answer("307 Temporary Redirect", b"", "Location: /token\r\n"))
    elif name == "redirect":
        send(answer("302 Found", b"", "Location: /new\r\n"))
    elif name == "moved":
        send(answer("301 Moved Permanently", b"", "Location: http://127.0.0.1:1/\r\n"))
    elif name == "huge":
        send(answer("200 OK", b"", "").replace(b"Length: 0", b"Length: 1000000000000"))
        time.sleep(60)
    elif name == "large":
        send(answer("200 OK", b" " * (256 * 1024 + 1)))
    elif name == "largest":
        body = b'{"keys":[]}'
        send(answer("200 OK", body + b" " * (256 * 1024 - len(body))))
    elif name == "endless":
        send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            send(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
    elif name == "endless-until-closed":
        send(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            send(b" " * 0x4000)
    elif name == "endless-chunk-extension":
        send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=")
        while True:
            send(b"a" * 0x4000)
    elif name == "endless-head":
        send(b"HTTP/1.1 200 OK\r\n")
        while True:
            send(b"X-More: " + b"a" * 1000 + b"\r\n")
    elif name == "endless-continue":
        while True:
            send(b"HTTP/1.1 100 Continue\r\n\r\n")
    elif name == "gzip":
        send(answer("200 OK", b"\x1f\x8b\x08\x00", "Content-Encoding: gzip\r\n"))
    elif name == "garbage":
        send(os.urandom(4096))
    elif name == "short":
        send(answer("200 OK", b'{"keys":[').replace(b"Length: 9", b"Length: 99"))
    elif name == "two-lengths":
        send(answer("200 OK", b'{"keys":[]}', "Content-Length: 1\r\n"))
    elif name == "escape":
        send(answer("200 OK", b"", "Content-Type: a\x1b[31mb\r\n"))
    elif name == "nothing":
        pass
    elif name == "hang-answer":
        time.sleep(60)
    elif name == "hang-head":
        send(b"HTTP/1.1 200 OK\r\nContent-")
        time.sleep(60)
    elif name == "hang-document":
        send(answer("200 OK", b"{", "").replace(b"Length: 1", b"Length: 99"))
        time.sleep(60)
    elif name == "trickle":
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            send(b" ")
            time.sleep(0.1)


def tls(certificate, newest=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if newest:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = newest
        context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(f"{certificate}.pem", f"{certificate}.key")
    return lambda stream: context.wrap_socket(stream, server_side=True)


def connection(stream, wrap):
    try:
        stream = wrap(stream)
        serve(stream)
        stream.unwrap() if isinstance(stream, ssl.SSLSocket) else None
        stream.close()
    except (OSError, ssl.SSLError, ValueError):
        stream.close()


def listen(wrap):
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept():
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=connection, args=(stream, wrap), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def garbage(stream):
    stream.sendall(os.urandom(4096))
    stream.close()
    raise OSError


def hang(stream):
    HANGS.append(stream)
    time.sleep(60)
    raise OSError


def deaf():
    """One whose queue is full, so that a connection is never taken."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(4):
        full = socket.socket()
        full.setblocking(False)
        full.connect_ex(listener.getsockname())
        HANGS.append(full)
    HANGS.append(listener)
    return listener.getsockname()[1]


def closed():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


ports = {
    "right": listen(tls("right")),
    "expired": listen(tls("expired")),
    "early": listen(tls("early")),
    "other_name": listen(tls("other_name")),
    "other_ca": listen(tls("other_ca")),
    "self_signed": listen(tls("self_signed")),
    "tls12": listen(tls("right", ssl.TLSVersion.TLSv1_2)),
    "tls11": listen(tls("right", ssl.TLSVersion.TLSv1_1)),
    "plain": listen(lambda stream: stream),
    "noise": listen(garbage),
    "hang": listen(hang),
    "deaf": deaf(),
    "closed": closed(),
}
print(json.dumps(ports), flush=True)
sys.stdin.read()
