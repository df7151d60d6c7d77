# Speaks TLS in front of a server on loopback that does not: what arrives goes there, and back. Its arguments are a
# directory with right.pem and right.key, and the server's port, or 0: then nothing is ever answered. Prints its own,
# and ends with its standard input.

import os, socket, ssl, sys, threading

os.chdir(sys.argv[1])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("right.pem", "right.key")


def copy(source, sink):
    try:
        while part := source.recv(16384):
            sink.sendall(part)
    except (OSError, ssl.SSLError):
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(stream):
    try:
        stream = context.wrap_socket(stream, server_side=True)
        if sys.argv[2] == "0":
            while stream.recv(16384):
                pass
            return
        behind = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    except (OSError, ssl.SSLError):
        stream.close()
        return
    threading.Thread(target=copy, args=(behind, stream), daemon=True).start()
    copy(stream, behind)


def accept(listener):
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve, args=(stream,), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0), backlog=64)
threading.Thread(target=accept, args=(listener,), daemon=True).start()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
