"""An ADS server by other people's code: grpcio and xds-protos, state of the world and delta.

Reads one JSON document per line from standard input: {"Cluster": [...], "ClusterLoadAssignment": [...], ...} in
protobuf JSON, each line replacing the resources it names. Writes one JSON line per event: {"port": N} once, then
{"ack"|"nack": short type, "version": ..., "detail": ...} for what the client says.
"""

import json
import queue
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import any_pb2, json_format
from google.rpc import status_pb2  # noqa: F401  (registers the message that NACKs carry)
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401  (so that Any can be read)
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

MESSAGES = {
    "Cluster": cluster_pb2.Cluster,
    "ClusterLoadAssignment": endpoint_pb2.ClusterLoadAssignment,
    "Listener": listener_pb2.Listener,
    "RouteConfiguration": route_pb2.RouteConfiguration,
}
PREFIX = "type.googleapis.com/"
lock = threading.Lock()
resources = {}  # type URL -> name -> Any
versions = {}  # type URL -> number
listeners = []  # one queue per stream; an item is a type URL that changed


def say(event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def name_of(message):
    return getattr(message, "name", "") or message.cluster_name


def take(document):
    with lock:
        for short, items in document.items():
            url = PREFIX + MESSAGES[short].DESCRIPTOR.full_name
            found = {}
            for item in items:
                message = json_format.ParseDict(item, MESSAGES[short]())
                packed = any_pb2.Any()
                packed.Pack(message)
                found[name_of(message)] = packed
            resources[url] = found
            versions[url] = versions.get(url, 0) + 1
            for changed in listeners:
                changed.put(url)


def note(request, url):
    short = url.rsplit(".", 1)[-1]
    if request.HasField("error_detail"):
        say({"nack": short, "detail": request.error_detail.message})
    elif request.response_nonce:
        say({"ack": short})


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    def _events(self, requests):
        """Requests and changes of one stream in one queue."""
        events = queue.Queue()
        with lock:
            listeners.append(events)

        def read():
            try:
                for request in requests:
                    events.put(request)
            except grpc.RpcError:
                pass
            events.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (event := events.get()) is not None:
            yield event
        with lock:
            listeners.remove(events)

    def StreamAggregatedResources(self, requests, context):
        wanted, sent = {}, {}
        for event in self._events(requests):
            url = event if isinstance(event, str) else event.type_url
            if not isinstance(event, str):
                note(event, url)
                wanted[url] = list(event.resource_names)
            with lock:
                held, version = resources.get(url, {}), versions.get(url, 0)
                names = wanted.get(url)
                if names is None or url not in resources:
                    continue
                chosen = {n: r for n, r in held.items() if not names or n in names}
                state = (version, tuple(sorted(chosen)))
            if sent.get(url) == state:
                continue
            sent[url] = state
            yield discovery_pb2.DiscoveryResponse(
                version_info=str(version), nonce=f"{url}/{version}/{len(chosen)}", type_url=url, resources=chosen.values()
            )

    def DeltaAggregatedResources(self, requests, context):
        wanted, sent, nonce = {}, {}, 0
        for event in self._events(requests):
            url = event if isinstance(event, str) else event.type_url
            if not isinstance(event, str):
                note(event, url)
                names = wanted.setdefault(url, set() if event.resource_names_subscribe else {"*"})
                names |= set(event.resource_names_subscribe)
                names -= set(event.resource_names_unsubscribe)
            names = wanted.get(url)
            if names is None:
                continue
            with lock:
                held = dict(resources.get(url, {}))
            have = sent.setdefault(url, {})
            changed = {
                n: r for n, r in held.items() if ("*" in names or n in names) and have.get(n) != r.SerializeToString()
            }
            removed = [n for n in have if n not in held]
            if not changed and not removed:
                continue
            for name, resource in changed.items():
                have[name] = resource.SerializeToString()
            for name in removed:
                del have[name]
            nonce += 1
            yield discovery_pb2.DeltaDiscoveryResponse(
                system_version_info=str(nonce),
                nonce=str(nonce),
                type_url=url,
                removed_resources=removed,
                resources=[
                    discovery_pb2.Resource(name=n, version=str(hash(have[n])), resource=r) for n, r in changed.items()
                ],
            )


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(Ads(), server)
    say({"port": server.add_insecure_port("127.0.0.1:0")})
    server.start()
    for line in sys.stdin:
        take(json.loads(line))
        say({"taken": True})
    server.stop(0)


main()
