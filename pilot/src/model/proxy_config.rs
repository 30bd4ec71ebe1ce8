//! What of ProxyConfig decides what pilot sends (PC-2, PC-3): `defaultConfig` of the mesh, and what a proxy says of itself in
//! its node's metadata, which is that with its pod's annotation laid over it.

use serde_json::Value;

/// The settings; what is none is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct ProxyConfig {
    /// What stands before a gateway.
    pub topology: Option<Topology>,
    /// Share of requests that are traced, in hundredths of a percent (TR-2).
    pub sampling: Option<u32>,
    /// Whether connections are led to the proxy: `interceptionMode`, unless that is NONE.
    pub intercepts: Option<bool>,
}

/// What stands before a gateway: `gatewayTopology` (GW-19).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Topology {
    /// Proxies before it whose `x-forwarded-for` is believed.
    pub trusted_proxies: u32,
    /// What becomes of `x-forwarded-client-cert`, where that is said.
    pub client_cert: Option<ClientCert>,
    /// Connections begin with the PROXY protocol.
    pub proxy_protocol: bool,
}

/// What a gateway does with `x-forwarded-client-cert`: Envoy's `forward_client_cert_details`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientCert {
    /// It is taken away.
    Sanitize,
    /// It is passed on where the connection is mutual TLS.
    ForwardOnly,
    /// The client's certificate is appended where the connection is mutual TLS.
    AppendForward,
    /// It becomes the client's certificate where the connection is mutual TLS.
    SanitizeSet,
    /// It is passed on.
    AlwaysForwardOnly,
}

impl ProxyConfig {
    /// Reads a ProxyConfig.
    ///
    /// # Errors
    /// The field that has no meaning.
    pub fn parse(written: &Value) -> Result<Self, String> {
        let topology =
            written.get("gatewayTopology").filter(|said| !said.is_null()).map(Topology::parse).transpose()?;
        let sampling = &written["tracing"]["sampling"];
        let sampling = match sampling.as_f64().filter(|percent| (0.0..=100.0).contains(percent)) {
            Some(percent) => Some((percent * 100.0).round() as u32),
            None if sampling.is_null() => None,
            None => return Err(field("tracing.sampling", "a percentage from 0 to 100 is needed")),
        };
        let intercepts = written["interceptionMode"].as_str().map(|mode| mode != "NONE");
        Ok(Self { topology, sampling, intercepts })
    }

    /// This, and of what it does not say what the mesh does. A topology is taken whole: Istio's agents leave out what is zero,
    /// and injection has laid the pod's over the mesh's.
    #[must_use]
    pub fn or(self, mesh: &Self) -> Self {
        Self {
            topology: self.topology.or(mesh.topology),
            sampling: self.sampling.or(mesh.sampling),
            intercepts: self.intercepts.or(mesh.intercepts),
        }
    }
}

impl Topology {
    fn parse(written: &Value) -> Result<Self, String> {
        let trusted = &written["numTrustedProxies"];
        let trusted_proxies = match trusted.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => number,
            None if trusted.is_null() => 0,
            None => return Err(field("gatewayTopology.numTrustedProxies", "a number of proxies is needed")),
        };
        let details = &written["forwardClientCertDetails"];
        let client_cert = match details.as_str() {
            None if details.is_null() => None,
            Some("UNDEFINED") => None,
            _ => {
                let why = "use SANITIZE, FORWARD_ONLY, APPEND_FORWARD, SANITIZE_SET or ALWAYS_FORWARD_ONLY";
                let known = serde_json::from_value(details.clone());
                Some(known.map_err(|_| field("gatewayTopology.forwardClientCertDetails", why))?)
            }
        };
        Ok(Self { trusted_proxies, client_cert, proxy_protocol: written["proxyProtocol"].is_object() })
    }
}

fn field(name: &str, why: &str) -> String {
    format!("defaultConfig.{name}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // spec: PC-2, PC-3
    #[test]
    fn what_has_no_meaning_is_refused_by_name() {
        for (written, named) in [
            (json!({"gatewayTopology": {"numTrustedProxies": -1}}), "gatewayTopology.numTrustedProxies"),
            (json!({"gatewayTopology": {"forwardClientCertDetails": "X"}}), "gatewayTopology.forwardClientCertDetails"),
            (json!({"tracing": {"sampling": 101}}), "tracing.sampling"),
        ] {
            let refused = ProxyConfig::parse(&written).unwrap_err();
            assert!(refused.starts_with(&format!("defaultConfig.{named}: ")), "{refused}");
        }
        let undefined = ProxyConfig::parse(&json!({"gatewayTopology": {"forwardClientCertDetails": "UNDEFINED"}}));
        assert_eq!(undefined.map(|read| read.topology), Ok(Some(Topology::default())));
    }

    // spec: PC-2
    #[test]
    fn a_proxy_says_more_than_its_mesh() {
        let read = |written: Value| ProxyConfig::parse(&written).unwrap();
        let mesh = read(json!({"gatewayTopology": {"numTrustedProxies": 1}, "tracing": {"sampling": 50}}));
        assert_eq!(ProxyConfig::default().or(&mesh), mesh);
        let own = read(json!({"gatewayTopology": {"numTrustedProxies": 2}, "tracing": {"sampling": 0.5}})).or(&mesh);
        assert_eq!((own.topology.unwrap().trusted_proxies, own.sampling), (2, Some(50)));
    }

    // spec: GW-19, PC-2
    #[test]
    fn a_gateway_that_nothing_stands_before_trusts_nobody_whatever_its_mesh_says() {
        let read = |written: Value| ProxyConfig::parse(&written).unwrap();
        let behind = json!({"numTrustedProxies": 2, "forwardClientCertDetails": "FORWARD_ONLY", "proxyProtocol": {}});
        let mesh = read(json!({"gatewayTopology": behind}));
        let undone = json!({"numTrustedProxies": 0, "forwardClientCertDetails": "UNDEFINED", "proxyProtocol": null});
        // Istio's agents leave out what is zero.
        for own in [undone, json!({})] {
            let exposed = read(json!({"gatewayTopology": own})).or(&mesh);
            assert_eq!(exposed.topology, Some(Topology::default()));
        }
    }
}
