//! Protocol of a port: appProtocol, then the port's name, then sniffing (PR-1 to PR-4).

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// HTTP inside TLS that is not terminated.
    Https,
    /// TLS that is not terminated.
    Tls,
    /// Plain TCP, and what is treated as such: mongo, redis, mysql.
    Tcp,
    /// Not proxied.
    Udp,
    /// Found out from the first bytes.
    Sniff,
}

/// Ports whose protocols let the server speak first: never sniffed (PR-3).
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// The protocol of a declared name (`http`, `grpc-web`, `TCP`), case-insensitive.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Self::Http,
            "http2" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" | "kubernetes.io/wss" => Self::Https,
            "tls" => Self::Tls,
            "tcp" | "mongo" | "redis" | "mysql" => Self::Tcp,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// The protocol of a Kubernetes port.
    pub fn of_port(port: u16, name: &str, transport: &str, app_protocol: Option<&str>) -> Self {
        if transport.eq_ignore_ascii_case("udp") {
            return Self::Udp;
        }
        if let Some(protocol) = app_protocol.and_then(Self::parse) {
            return protocol;
        }
        let lower = name.to_ascii_lowercase();
        let prefix = if lower.starts_with("grpc-web") { "grpc-web" } else { lower.split('-').next().unwrap_or("") };
        match Self::parse(prefix) {
            Some(protocol) => protocol,
            None if SERVER_FIRST.contains(&port) => Self::Tcp,
            None => Self::Sniff,
        }
    }

    /// Whether requests can be seen for certain.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the server is spoken to in HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether it is TLS that passes through.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

#[cfg(test)]
mod tests {
    use super::Protocol::{self, *};

    // spec: PR-1, PR-2
    #[test]
    fn app_protocol_beats_the_name() {
        assert_eq!(Protocol::of_port(80, "tcp-x", "TCP", Some("grpc")), Grpc);
        assert_eq!(Protocol::of_port(80, "http", "TCP", Some("kubernetes.io/h2c")), Http2);
        assert_eq!(Protocol::of_port(80, "GRPC-WEB-x", "TCP", None), GrpcWeb);
        assert_eq!(Protocol::of_port(80, "Http2-x", "TCP", Some("unknown")), Http2);
        assert_eq!(Protocol::of_port(80, "redis", "TCP", None), Tcp);
        assert_eq!(Protocol::of_port(443, "https-web", "TCP", Some("kubernetes.io/wss")), Https);
    }

    // spec: PR-1, PR-2
    #[test]
    fn every_name_that_istio_knows() {
        let names = [
            ("http", Http),
            ("http2", Http2),
            ("https", Https),
            ("grpc", Grpc),
            ("grpc-web", GrpcWeb),
            ("tcp", Tcp),
            ("tls", Tls),
            ("udp", Udp),
            ("mongo", Tcp),
            ("redis", Tcp),
            ("mysql", Tcp),
        ];
        for (name, protocol) in names {
            assert_eq!(Protocol::of_port(80, name, "TCP", None), protocol, "{name}");
            assert_eq!(Protocol::of_port(80, &format!("{}-x", name.to_uppercase()), "TCP", None), protocol, "{name}-x");
            assert_eq!(Protocol::of_port(80, "tcp", "TCP", Some(name)), protocol, "appProtocol {name}");
        }
        for (name, protocol) in [("kubernetes.io/h2c", Http2), ("kubernetes.io/ws", Http), ("kubernetes.io/wss", Https)]
        {
            assert_eq!(Protocol::of_port(80, "tcp", "TCP", Some(name)), protocol, "{name}");
        }
        assert_eq!(Protocol::of_port(80, "httpx", "TCP", None), Sniff, "a prefix ends with a dash");
    }

    // spec: PR-3, PR-4
    #[test]
    fn no_name_is_sniffed_but_for_ports_where_the_server_speaks_first() {
        assert_eq!(Protocol::of_port(8000, "web", "TCP", None), Sniff);
        for port in [25, 53, 3306, 27017] {
            assert_eq!(Protocol::of_port(port, "", "TCP", None), Tcp);
        }
        assert_eq!(Protocol::of_port(80, "http", "UDP", None), Udp);
    }
}
