//! What the client's side is known by: `x-forwarded-*`, `x-envoy-*` and the client's certificate (HD-2 to HD-6, HD-12,
//! MT-8).

use super::config::{CertDetails, ForwardClientCert, HcmConfig};
use crate::filter::StreamCx;
use crate::message::{Known, RequestHead};
use crate::net::{CertFacts, PeerFacts};
use std::net::IpAddr;

/// Control headers that only a trusted client may set (HD-12): nobody is trusted unless internal addresses are
/// configured.
const CONTROL: [Known; 15] = [
    Known::XEnvoyRetryOn,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyMaxRetries,
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyHedgeOnPerTryTimeout,
    Known::XEnvoyUpstreamAltStatName,
    Known::XEnvoyUpstreamRqTimeoutMs,
    Known::XEnvoyUpstreamRqPerTryTimeoutMs,
    Known::XEnvoyUpstreamRqTimeoutAltResponse,
    Known::XEnvoyUpstreamStreamDurationMs,
    Known::XEnvoyExpectedRqTimeoutMs,
    Known::XEnvoyInternal,
    Known::XEnvoyOriginalPath,
    Known::XEnvoyOriginalHost,
];

/// Sets what this proxy knows of the client.
pub(super) fn request(head: &mut RequestHead, config: &HcmConfig, cx: &StreamCx) {
    head.headers.remove_all(&CONTROL);
    let scheme: &[u8] = if cx.peer.tls.is_some() { b"https" } else { b"http" };
    if config.use_remote_address {
        edge(head, config, cx, scheme);
    } else if !head.headers.contains(Known::XForwardedProto) {
        head.headers.append_known(Known::XForwardedProto, scheme);
    }
    head.set_scheme_to(Known::XForwardedProto);
    client_cert(head, config.client_cert, &cx.peer);
}

fn edge(head: &mut RequestHead, config: &HcmConfig, cx: &StreamCx, scheme: &[u8]) {
    let peer = cx.peer.remote.ip();
    let client = client(head, config).unwrap_or(peer);
    if !config.skip_xff_append {
        append_list(head, Known::XForwardedFor, peer.to_string().as_bytes());
    }
    // Behind trusted hops the scheme is theirs to say.
    if config.xff_trusted_hops == 0 || !head.headers.contains(Known::XForwardedProto) {
        head.headers.set(Known::XForwardedProto, scheme);
    }
    head.headers.set(Known::XEnvoyExternalAddress, client.to_string().as_bytes());
}

/// The client that `x-forwarded-for` names, before this proxy adds to it (HD-2): without `use_remote_address` the
/// address n + 1 from the right, n being the trusted hops; at the edge the n-th, and none where no hop is trusted.
pub(super) fn client(head: &RequestHead, config: &HcmConfig) -> Option<IpAddr> {
    if !head.headers.contains(Known::XForwardedFor) {
        return None;
    }
    let from_right = config.xff_trusted_hops.checked_sub(u32::from(config.use_remote_address))?;
    let list = head.headers.joined(b"x-forwarded-for")?;
    let mut addresses = list.rsplit(|b| *b == b',').map(<[u8]>::trim_ascii);
    std::str::from_utf8(addresses.nth(from_right as usize)?).ok()?.parse().ok()
}

fn append_list(head: &mut RequestHead, known: Known, value: &[u8]) {
    let joined = match head.headers.joined(known.as_str().as_bytes()) {
        Some(before) => [&before, &b","[..], value].concat(),
        None => value.to_vec(),
    };
    head.headers.set(known, &joined);
}

fn client_cert(head: &mut RequestHead, (mode, details): (ForwardClientCert, CertDetails), peer: &PeerFacts) {
    let cert = peer.tls.as_ref().and_then(|tls| tls.peer.as_ref());
    match (mode, cert) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::AppendForward, Some(cert)) => {
            let element = element(cert, details, peer.local_id());
            append_list(head, Known::XForwardedClientCert, &element);
        }
        (ForwardClientCert::SanitizeSet, Some(cert)) => {
            let element = element(cert, details, peer.local_id());
            head.headers.set(Known::XForwardedClientCert, &element);
        }
        // Istio keeps what a plaintext client says under APPEND_FORWARD; nobody has proven it, so it goes (P5).
        _ => {
            head.headers.remove(Known::XForwardedClientCert);
        }
    }
}

/// One element: `By=…;Hash=…;Cert="…";Subject="…";URI=…;DNS=…` (HD-4).
fn element(cert: &CertFacts, details: CertDetails, own: Option<&str>) -> Vec<u8> {
    let mut out = String::new();
    if let Some(own) = own {
        out.push_str(&format!("By={own};"));
    }
    out.push_str(&format!("Hash={}", cert.sha256));
    if details.cert || details.chain {
        let encoded = cert.url_encoded_pem();
        if details.cert {
            out.push_str(&format!(";Cert=\"{encoded}\""));
        }
        if details.chain {
            out.push_str(&format!(";Chain=\"{encoded}\""));
        }
    }
    if details.subject {
        out.push_str(&format!(";Subject=\"{}\"", cert.subject.replace('"', "\\\"")));
    }
    if details.uri {
        for uri in &cert.uri_sans {
            out.push_str(&format!(";URI={uri}"));
        }
    }
    if details.dns {
        for dns in &cert.dns_sans {
            out.push_str(&format!(";DNS={dns}"));
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::filter::Facts;
    use crate::message::Version;
    use crate::net::TlsFacts;
    use crate::route::RouteTable;
    use std::rc::Rc;
    use std::sync::Arc;

    fn cx(tls: bool) -> StreamCx {
        let mut peer = PeerFacts::plain(1, ([10, 0, 0, 9], 1).into(), ([10, 0, 0, 1], 80).into());
        let cert =
            |id: &str| Some(CertFacts { uri_sans: vec![id.into()], sha256: "ab".into(), ..CertFacts::default() });
        if tls {
            peer.tls =
                Some(TlsFacts { peer: cert("spiffe://td/a"), local: cert("spiffe://td/me"), ..TlsFacts::default() });
        }
        let facts = Rc::new(Facts::alone(Env::seeded(1)));
        let now = facts.env.now();
        StreamCx::new(&facts, &Rc::new(peer), Arc::default(), now)
    }

    fn config() -> HcmConfig {
        HcmConfig::plain(Arc::new([]), Arc::new(RouteTable::default())).expect("valid")
    }

    fn run(config: &HcmConfig, tls: bool, headers: &[(&str, &str)], name: &str) -> Option<String> {
        let mut head = RequestHead::new(Version::H11, b"GET", b"", b"a", b"/");
        headers.iter().for_each(|(n, v)| head.headers.append(n.as_bytes(), v.as_bytes()));
        request(&mut head, config, &cx(tls));
        head.headers.joined(name.as_bytes()).map(|v| String::from_utf8_lossy(&v).into_owned())
    }

    // spec: HD-2, HD-3, HD-6
    #[test]
    fn the_edge_appends_the_peer_and_names_the_trusted_client() {
        let edge = HcmConfig { use_remote_address: true, ..config() };
        let sent = [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-proto", "ftp")];
        assert_eq!(run(&edge, false, &sent, "x-forwarded-for").as_deref(), Some("1.1.1.1, 2.2.2.2,10.0.0.9"));
        assert_eq!(run(&edge, false, &sent, "x-forwarded-proto").as_deref(), Some("http"));
        assert_eq!(run(&edge, false, &sent, "x-envoy-external-address").as_deref(), Some("10.0.0.9"));
        let hop = HcmConfig { xff_trusted_hops: 1, ..edge };
        assert_eq!(run(&hop, false, &sent, "x-envoy-external-address").as_deref(), Some("2.2.2.2"));
        let silent = HcmConfig { skip_xff_append: true, ..hop };
        assert_eq!(run(&silent, false, &sent, "x-forwarded-for").as_deref(), Some("1.1.1.1, 2.2.2.2"));
        assert_eq!(run(&silent, false, &sent, "x-envoy-external-address").as_deref(), Some("2.2.2.2"));
        let sidecar = config();
        assert_eq!(run(&sidecar, false, &sent, "x-envoy-external-address"), None);
        assert_eq!(run(&sidecar, false, &sent, "x-forwarded-for").as_deref(), Some("1.1.1.1, 2.2.2.2"));
        assert_eq!(run(&sidecar, true, &[], "x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(run(&sidecar, true, &sent, "x-forwarded-proto").as_deref(), Some("ftp"));
    }

    // spec: HD-2
    #[test]
    fn hops_are_counted_from_the_right_and_at_the_edge_the_peer_is_one_of_them() {
        let of = |list: &str, hops: u32, use_remote_address: bool| {
            let mut head = RequestHead::new(Version::H11, b"GET", b"", b"a", b"/");
            head.headers.append(b"x-forwarded-for", list.as_bytes());
            let config = HcmConfig { xff_trusted_hops: hops, use_remote_address, ..config() };
            client(&head, &config).map(|ip| ip.to_string())
        };
        let list = "1.1.1.1, 2.2.2.2,::3";
        let found = |hops, edge| of(list, hops, edge).unwrap_or_default();
        assert_eq!([0, 1, 2, 3].map(|hops| found(hops, false)), ["::3", "2.2.2.2", "1.1.1.1", ""]);
        assert_eq!([0, 1, 2, 3, 4].map(|hops| found(hops, true)), ["", "::3", "2.2.2.2", "1.1.1.1", ""]);
        assert_eq!(of("unknown", 0, false), None);
    }

    // spec: HD-4, MT-8
    #[test]
    fn the_clients_certificate_is_forwarded_by_mode_and_never_believed_unproven() {
        let of = |mode, tls| {
            let details = CertDetails { subject: true, uri: true, dns: true, ..CertDetails::default() };
            let config = HcmConfig { client_cert: (mode, details), ..config() };
            run(&config, tls, &[("x-forwarded-client-cert", "URI=forged")], "x-forwarded-client-cert")
        };
        let ours = "By=spiffe://td/me;Hash=ab;Subject=\"\";URI=spiffe://td/a";
        assert_eq!(of(ForwardClientCert::AppendForward, true), Some(format!("URI=forged,{ours}")));
        assert_eq!(of(ForwardClientCert::SanitizeSet, true).as_deref(), Some(ours));
        assert_eq!(of(ForwardClientCert::ForwardOnly, true).as_deref(), Some("URI=forged"));
        for mode in [ForwardClientCert::AppendForward, ForwardClientCert::SanitizeSet, ForwardClientCert::ForwardOnly] {
            assert_eq!(of(mode, false), None);
        }
        assert_eq!(of(ForwardClientCert::Sanitize, true), None);
        let cert = CertFacts {
            uri_sans: vec!["spiffe://td/a".into(), "spiffe://td/b".into()],
            dns_sans: vec!["a.test".into(), "b.test".into()],
            subject: "CN=\"x\"".into(),
            sha256: "cd".into(),
            der: [1, 2, 3, 4].into(),
            ..CertFacts::default()
        };
        let details = CertDetails { subject: true, cert: true, chain: false, dns: true, uri: true };
        let whole = String::from_utf8(element(&cert, details, None)).expect("text");
        let pem = "-----BEGIN%20CERTIFICATE-----%0AAQIDBA%3D%3D%0A-----END%20CERTIFICATE-----%0A";
        assert_eq!(
            whole,
            format!(
                "Hash=cd;Cert=\"{pem}\";Subject=\"CN=\\\"x\\\"\";URI=spiffe://td/a;URI=spiffe://td/b;DNS=a.test;DNS=b.test"
            )
        );
        let bare = element(&cert, CertDetails::default(), Some("spiffe://td/me"));
        assert_eq!(bare, b"By=spiffe://td/me;Hash=cd");
        assert_eq!(of(ForwardClientCert::AlwaysForwardOnly, false).as_deref(), Some("URI=forged"));
    }

    // spec: HD-12
    #[test]
    fn control_headers_of_clients_are_dropped() {
        for known in CONTROL {
            assert_eq!(run(&config(), false, &[(known.as_str(), "1")], known.as_str()), None);
        }
    }
}
