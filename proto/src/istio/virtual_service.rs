//! VirtualService (spec 1.1).

use super::{Duration, Later, StringMatch};
use std::collections::BTreeMap;

istio_struct! {
    /// `spec` of a VirtualService.
    VirtualService {
        hosts: Vec<String>,
        gateways: Vec<String>,
        http: Vec<HttpRoute>,
        tls: Vec<TlsRoute>,
        tcp: Vec<TcpRoute>,
        export_to: Vec<String>,
    }
}

istio_struct! {
    /// One HTTP rule.
    HttpRoute {
        name: String,
        #[serde(rename = "match")]
        matches: Vec<HttpMatchRequest>,
        route: Vec<HttpRouteDestination>,
        redirect: Option<HttpRedirect>,
        direct_response: Option<HttpDirectResponse>,
        delegate: Option<Delegate>,
        rewrite: Option<HttpRewrite>,
        timeout: Option<Duration>,
        retries: Option<HttpRetry>,
        fault: Option<HttpFaultInjection>,
        mirror: Option<Destination>,
        mirrors: Vec<HttpMirrorPolicy>,
        mirror_percent: Option<u32>,
        mirror_percentage: Option<Percent>,
        cors_policy: Option<CorsPolicy>,
        headers: Option<Headers>,
    }
}

istio_struct! {
    /// One block of conditions: all of them hold.
    HttpMatchRequest {
        name: String,
        uri: Option<StringMatch>,
        scheme: Option<StringMatch>,
        method: Option<StringMatch>,
        authority: Option<StringMatch>,
        headers: BTreeMap<String, StringMatch>,
        port: Option<u32>,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        query_params: BTreeMap<String, StringMatch>,
        ignore_uri_case: bool,
        without_headers: BTreeMap<String, StringMatch>,
        source_namespace: String,
        stat_prefix: String,
    }
}

istio_struct! {
    /// A destination with its weight.
    HttpRouteDestination {
        destination: Option<Destination>,
        weight: Option<i32>,
        headers: Option<Headers>,
    }
}

istio_struct! {
    /// A service, a subset of it, a port of it.
    #[derive(Eq, Hash)]
    Destination {
        host: String,
        subset: String,
        port: Option<PortSelector>,
    }
}

istio_struct! {
    /// A port by number.
    #[derive(Eq, Hash)]
    PortSelector { number: u32 }
}

istio_struct! {
    /// Redirect of a request.
    HttpRedirect {
        uri: String,
        prefix_rewrite: Option<String>,
        authority: String,
        scheme: String,
        port: Option<u32>,
        derive_port: Option<RedirectPortSelection>,
        redirect_code: Option<u32>,
    }
}

istio_enum! {
    /// Where the port of a redirect comes from.
    RedirectPortSelection { FromProtocolDefault, FromRequestPort }
}

istio_struct! {
    /// A fixed answer.
    HttpDirectResponse {
        status: u32,
        body: Option<HttpBody>,
    }
}

istio_struct! {
    /// Body of a fixed answer: one of the two; `bytes` is base64.
    HttpBody {
        string: Option<String>,
        bytes: Option<String>,
    }
}

istio_struct! {
    /// The VirtualService that holds the rules.
    #[derive(Eq, Hash)]
    Delegate {
        name: String,
        namespace: String,
    }
}

istio_struct! {
    /// Rewrite of path and authority.
    HttpRewrite {
        uri: Option<String>,
        authority: Option<String>,
        uri_regex_rewrite: Option<RegexRewrite>,
    }
}

istio_struct! {
    /// Substitution in the path; RE2 with `\1` groups.
    RegexRewrite {
        #[serde(rename = "match")]
        pattern: String,
        rewrite: String,
    }
}

istio_struct! {
    /// Retries.
    HttpRetry {
        attempts: Option<i32>,
        per_try_timeout: Option<Duration>,
        retry_on: String,
        retry_remote_localities: Option<bool>,
        retry_ignore_previous_hosts: Option<bool>,
        backoff: Option<Duration>,
    }
}

istio_struct! {
    /// Injected faults.
    HttpFaultInjection {
        delay: Option<FaultDelay>,
        abort: Option<FaultAbort>,
    }
}

istio_struct! {
    /// An injected delay.
    FaultDelay {
        percent: Option<i32>,
        percentage: Option<Percent>,
        fixed_delay: Option<Duration>,
        exponential_delay: Option<Later>,
    }
}

istio_struct! {
    /// An injected error.
    FaultAbort {
        http_status: Option<u32>,
        grpc_status: Option<String>,
        http2_error: Option<Later>,
        percentage: Option<Percent>,
    }
}

istio_struct! {
    /// A share of requests in percent.
    Percent { value: f64 }
}

istio_struct! {
    /// A mirror of its own.
    HttpMirrorPolicy {
        destination: Option<Destination>,
        percentage: Option<Percent>,
    }
}

istio_struct! {
    /// Cross-origin rules.
    CorsPolicy {
        allow_origin: Vec<String>,
        allow_origins: Vec<StringMatch>,
        allow_methods: Vec<String>,
        allow_headers: Vec<String>,
        expose_headers: Vec<String>,
        max_age: Option<Duration>,
        allow_credentials: Option<bool>,
        unmatched_preflights: Option<UnmatchedPreflights>,
    }
}

istio_enum! {
    /// What becomes of a preflight whose origin matches nothing.
    UnmatchedPreflights { Unspecified, Forward, Ignore }
}

istio_struct! {
    /// Operations on the headers of both directions.
    Headers {
        request: Option<HeaderOperations>,
        response: Option<HeaderOperations>,
    }
}

istio_struct! {
    /// Operations on headers.
    HeaderOperations {
        set: BTreeMap<String, String>,
        add: BTreeMap<String, String>,
        remove: Vec<String>,
    }
}

istio_struct! {
    /// One rule for TLS that is not terminated.
    TlsRoute {
        #[serde(rename = "match")]
        matches: Vec<TlsMatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

istio_struct! {
    /// Conditions of a TLS rule.
    TlsMatchAttributes {
        sni_hosts: Vec<String>,
        destination_subnets: Vec<String>,
        port: Option<u32>,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}

istio_struct! {
    /// One rule for TCP.
    TcpRoute {
        #[serde(rename = "match")]
        matches: Vec<L4MatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

istio_struct! {
    /// Conditions of a TCP rule.
    L4MatchAttributes {
        destination_subnets: Vec<String>,
        port: Option<u32>,
        source_subnet: Option<Later>,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}

istio_struct! {
    /// A destination of a TCP or TLS rule.
    RouteDestination {
        destination: Option<Destination>,
        weight: Option<i32>,
    }
}
