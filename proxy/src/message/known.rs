//! Header names that the proxy itself looks at: compared as one byte instead of as text.

macro_rules! known {
    ($($variant:ident = $text:literal,)*) => {
        /// A header name that the proxy knows, or [`Known::Other`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each variant is the header of that name")]
        pub enum Known { Other, $($variant,)* }

        const ALL: &[(Known, &str)] = &[$((Known::$variant, $text),)*];

        impl Known {
            /// How many there are, with [`Self::Other`].
            pub const COUNT: usize = ALL.len() + 1;

            /// The name in lower case; empty for `Other`.
            #[inline]
            pub const fn as_str(self) -> &'static str {
                match self { Self::Other => "", $(Self::$variant => $text,)* }
            }
        }
    };
}

known! {
    Te = "te", Via = "via", Age = "age", B3 = "b3",
    Host = "host", Date = "date", Etag = "etag", From = "from", Vary = "vary",
    Accept = "accept", Cookie = "cookie", Expect = "expect", Origin = "origin", Server = "server",
    Trailer = "trailer", Upgrade = "upgrade", Referer = "referer",
    Location = "location", GrpcStatus = "grpc-status", Connection = "connection",
    KeepAlive = "keep-alive", SetCookie = "set-cookie", UserAgent = "user-agent",
    RetryAfter = "retry-after", XB3TraceId = "x-b3-traceid", Traceparent = "traceparent", GrpcMessage = "grpc-message",
    GrpcTimeout = "grpc-timeout", ContentType = "content-type", XRequestId = "x-request-id",
    Authorization = "authorization", ContentLength = "content-length", CacheControl = "cache-control",
    XForwardedFor = "x-forwarded-for", AcceptEncoding = "accept-encoding", ContentEncoding = "content-encoding",
    XForwardedHost = "x-forwarded-host", XForwardedPort = "x-forwarded-port", XForwardedProto = "x-forwarded-proto",
    ProxyConnection = "proxy-connection", TransferEncoding = "transfer-encoding", XEnvoyInternal = "x-envoy-internal",
    ProxyAuthenticate = "proxy-authenticate", WwwAuthenticate = "www-authenticate", Http2Settings = "http2-settings",
    SecWebsocketKey = "sec-websocket-key", SecWebsocketAccept = "sec-websocket-accept", SecWebsocketVersion = "sec-websocket-version",
    XForwardedClientCert = "x-forwarded-client-cert", XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on", XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes", XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout", XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms", XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time", XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOriginalHost = "x-envoy-original-host", XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation", XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyRatelimited = "x-envoy-ratelimited", XEnvoyPeerMetadata = "x-envoy-peer-metadata",
    XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id", XEnvoyForceTrace = "x-envoy-force-trace",
    XFerromeshReason = "x-ferromesh-reason", XB3SpanId = "x-b3-spanid", XB3ParentSpanId = "x-b3-parentspanid",
    XB3Sampled = "x-b3-sampled", XB3Flags = "x-b3-flags", XClientTraceId = "x-client-trace-id",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster", XEnvoyUpstreamCanary = "x-envoy-upstream-canary", XEnvoyDegraded = "x-envoy-degraded",
    XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
    AccessControlRequestMethod = "access-control-request-method",
}

/// Length of the longest known name, in bytes.
const LONGEST: usize = 41;

/// For each length, the range of `BY_LENGTH` that holds the names of that length.
static BY_LENGTH: [&[(Known, &str)]; LONGEST + 1] = buckets();

const fn count(length: usize) -> usize {
    let (mut i, mut n) = (0, 0);
    while i < ALL.len() {
        if ALL[i].1.len() == length {
            n += 1;
        }
        i += 1;
    }
    n
}

const fn bucket<const N: usize>(length: usize) -> [(Known, &'static str); N] {
    let mut out = [(Known::Other, ""); N];
    let (mut i, mut n) = (0, 0);
    while i < ALL.len() {
        if ALL[i].1.len() == length {
            out[n] = ALL[i];
            n += 1;
        }
        i += 1;
    }
    out
}

const fn buckets() -> [&'static [(Known, &'static str)]; LONGEST + 1] {
    macro_rules! rows {
        ($($n:literal)*) => { [$(&const { bucket::<{ count($n) }>($n) },)*] };
    }
    rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41)
}

impl Known {
    /// The known name that `name` is, in any case; `Other` if it is none.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let (Some(bucket), Some(last)) = (BY_LENGTH.get(name.len()), name.last()) else { return Self::Other };
        // names of one length differ most often in their last letter; HTTP/2 writes them in lower case
        let last = last | 0x20;
        let alike = |text: &[u8]| text.last() == Some(&last) && (text == name || text.eq_ignore_ascii_case(name));
        bucket.iter().find(|(_, text)| alike(text.as_bytes())).map_or(Self::Other, |(known, _)| *known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (known, text) in ALL {
            assert!(text.len() <= LONGEST, "{text}");
            assert_eq!(Known::of(text.as_bytes()), *known);
            assert_eq!(Known::of(text.to_uppercase().as_bytes()), *known);
        }
        assert_eq!(Known::of(b"x-unknown"), Known::Other);
        assert_eq!(Known::of(b""), Known::Other);
        assert_eq!(Known::of(&[b'a'; 200]), Known::Other);
    }
}
