"""A gRPC client or server that speaks xDS itself: grpcio, without generated code.

    grpc_peer.py serve NAME [ADDRESS]   answers /test.Echo/Say with NAME; writes {"port": N}. With an ADDRESS it is an xDS
                                        server there, which serves once its listener has come.
    grpc_peer.py call                   reads {"target": ..., "count": ...} per line, calls that often and writes
                                        {"answers": {NAME: times}, "errors": {text: times}}; channels are kept.
"""

import collections
import json
import sys
from concurrent import futures

import grpc
from grpc import experimental

METHOD = "/test.Echo/Say"


def say(event):
    print(json.dumps(event), flush=True)


def serve(name, address=None):
    def answer(_request, _context):
        return name.encode()

    handler = grpc.method_handlers_generic_handler("test.Echo", {"Say": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.server(futures.ThreadPoolExecutor(4), xds=address is not None)
    server.add_generic_rpc_handlers((handler,))
    if address is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        credentials = grpc.xds_server_credentials(grpc.insecure_server_credentials())
        server.add_secure_port(address, credentials)  # bound once its listener has come
        port = int(address.rsplit(":", 1)[1])
    server.start()
    say({"port": port})
    sys.stdin.read()


def call():
    # TLS where the cluster asks for it, else none.
    credentials = grpc.xds_channel_credentials(experimental.insecure_channel_credentials())
    channels = {}
    for line in sys.stdin:
        asked = json.loads(line)
        target = asked["target"]
        if target not in channels:
            channels[target] = grpc.secure_channel(target, credentials)
        method = channels[target].unary_unary(METHOD)
        answers, errors = collections.Counter(), collections.Counter()
        for _ in range(asked["count"]):
            try:
                answers[method(b"", timeout=asked.get("timeout", 10), wait_for_ready=asked.get("wait", True)).decode()] += 1
            except grpc.RpcError as error:
                errors[f"{error.code().name}: {error.details()}"] += 1
        say({"answers": answers, "errors": errors})


if sys.argv[1] == "serve":
    serve(*sys.argv[2:])
else:
    call()
