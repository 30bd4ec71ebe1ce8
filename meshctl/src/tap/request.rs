//! A line of a tap, as the proxy writes it.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A request, at its beginning (`event` is `open`) or at its end (`request`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Request {
    /// Number of the stream at its proxy, in hex.
    pub id: String,
    /// When it began, RFC 3339.
    pub time: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// HTTP version.
    pub protocol: Option<String>,
    /// Method.
    pub method: String,
    /// Scheme.
    pub scheme: String,
    /// Host.
    pub authority: String,
    /// Path with its query.
    pub path: String,
    /// Headers that were asked for.
    pub request_headers: BTreeMap<String, String>,
    /// Headers that were asked for.
    pub response_headers: BTreeMap<String, String>,
    /// The client's address.
    pub source_address: Option<String>,
    /// The address that the client dialled.
    pub destination_address: Option<String>,
    /// Both ends proved who they are.
    #[serde(rename = "mTLS")]
    pub mutual_tls: bool,
    /// Its trace.
    pub trace_id: Option<String>,
    /// The client.
    pub source: Party,
    /// The server.
    pub destination: Party,
    /// Host name of the service that was asked for.
    pub service: String,
    /// Name of the route.
    pub route: Option<String>,
    /// The cluster that it went to.
    pub cluster: Option<String>,
    /// The endpoint that it went to.
    pub endpoint: Option<String>,
    /// Tries.
    pub attempts: u32,
    /// Status; none at its beginning, 0 where the client left.
    pub status: Option<u16>,
    /// `grpc-status`.
    pub grpc_status: Option<u32>,
    /// Response flags, `-` where there is none.
    pub flags: String,
    /// Details of the response code.
    pub details: Option<String>,
    /// Why it did not go as its client wanted.
    pub reason: BTreeMap<String, String>,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// Milliseconds from its first byte to the last one of its answer.
    pub total_ms: Option<f64>,
    /// Milliseconds that the server took to begin its answer.
    pub upstream_ms: Option<f64>,
}

/// One end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Party {
    /// Its workload, where it is known.
    pub workload: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its identity.
    pub principal: Option<String>,
}

impl Request {
    /// Whether it went well: as for `stat`, everything but 5xx, no answer, and gRPC failures.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| (1..500).contains(&status))
            && self.grpc_status.is_none_or(|status| status == 0)
    }

    /// Who asks: the workload, else its address.
    pub fn source_name(&self) -> &str {
        let address = self.source_address.as_deref().map(host);
        self.source.workload.as_deref().or(address).unwrap_or("-")
    }

    /// Who is asked: the workload, else the service that was meant, else its address.
    pub fn destination_name(&self) -> &str {
        let known = |text: &'_ str| !text.is_empty() && text != "unknown";
        let service = Some(self.service.as_str()).filter(|host| known(host));
        let authority = Some(self.authority.as_str()).filter(|host| known(host));
        self.destination.workload.as_deref().or(service).or(authority).unwrap_or("-")
    }
}

/// The host of `HOST:PORT`.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_back_to_what_is_known() {
        let text = r#"{"event":"request","status":503,"grpcStatus":null,"sourceAddress":"10.0.0.1:5","authority":"a:80",
            "service":"unknown","source":{"workload":null},"destination":{},"mTLS":true,"new":"field"}"#;
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!((request.source_name(), request.destination_name()), ("10.0.0.1", "a:80"));
        assert!(request.mutual_tls && !request.is_success());
        let of = |status, grpc| Request { status: Some(status), grpc_status: grpc, ..Request::default() }.is_success();
        assert_eq!(
            [of(200, None), of(404, None), of(0, None), of(200, Some(0)), of(200, Some(14))],
            [true, true, false, true, false]
        );
    }
}
