//! What `proxy explain -o json` says.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The way of one request through one proxy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Story {
    /// The request, as it was understood.
    pub request: String,
    /// What decided, in order.
    pub steps: Vec<Step>,
    /// What comes of it.
    pub outcome: Outcome,
    /// Parts of the configuration that the proxy does not understand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_understood: Vec<String>,
}

/// One decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Where it was made: `listener`, `filter chain`, `policy`, `route`, `cluster`.
    pub station: String,
    /// What was chosen, or what decided.
    pub name: String,
    /// `matched`, `passed`, `denied`, `asks`, `may`, `failed`.
    pub verdict: String,
    /// Why, in one sentence.
    pub because: String,
    /// The object that made it, as `VirtualService/ns/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Where the object is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line of the file on which the object begins, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

/// What comes of a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Status that the proxy itself answers with; none where the server answers.
    pub status: Option<u16>,
    /// Response flags, `-` for none.
    pub flags: String,
    /// Response code details.
    pub details: String,
    /// The cluster, or the clusters with their shares.
    pub clusters: Vec<Share>,
    /// Endpoints of the first cluster.
    pub endpoints: Vec<Endpoint>,
}

/// A cluster that a request may go to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Its name.
    pub cluster: String,
    /// Its share, in percent.
    pub percent: f64,
}

/// An endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Its address.
    pub address: String,
    /// Its health.
    pub health: String,
    /// How it is spoken to: `mTLS`, `TLS` or `plaintext`.
    pub transport: String,
    /// The workload at the address, as `NAME.NAMESPACE`, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
}

impl Step {
    /// The object behind the step: the one that is named, or that of a policy's rule (`ns[a]-policy[b]-rule[0]`).
    pub fn origin(&self) -> Option<String> {
        let rule = |text: &str| {
            let (namespace, rest) = text.split_once("ns[")?.1.split_once(']')?;
            let (policy, _) = rest.split_once("policy[")?.1.split_once(']')?;
            Some(format!("AuthorizationPolicy/{namespace}/{policy}"))
        };
        self.object.clone().or_else(|| rule(&self.name)).or_else(|| rule(&self.because))
    }

    /// Says in words what the proxy says with the name `none`: policies that allow are there, and no rule of them does.
    pub fn spell_out(&mut self) {
        if self.station == "policy" && self.verdict == "denied" && self.name == "none" {
            self.name = "AuthorizationPolicy".to_owned();
            self.because = "ALLOW policies select the workload, and no rule of theirs allows the request".to_owned();
        }
    }
}

impl Outcome {
    /// The endpoint that is asked next, and whether over mutual TLS; none where the proxy itself answers.
    pub fn next(&self) -> Option<(SocketAddr, bool)> {
        let able = |endpoint: &&Endpoint| endpoint.health.is_empty() || endpoint.health == "healthy";
        let endpoint = self.endpoints.iter().find(able).or_else(|| self.endpoints.first())?;
        let address = endpoint.address.parse().ok()?;
        (self.status.is_none() && !self.is_closed()).then_some((address, endpoint.transport == "mTLS"))
    }

    /// Whether the connection is closed without an answer.
    pub fn is_closed(&self) -> bool {
        self.status.is_none() && !matches!(self.flags.as_str(), "" | "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_a_policy_leads_to_its_object() {
        let step = Step { name: "ns[default]-policy[only-get]-rule[0]".into(), ..Step::default() };
        assert_eq!(step.origin().as_deref(), Some("AuthorizationPolicy/default/only-get"));
        let allows = "ns[shop]-policy[get]-rule[1] allows it".to_owned();
        assert_eq!(
            Step { because: allows, ..Step::default() }.origin().as_deref(),
            Some("AuthorizationPolicy/shop/get")
        );
        assert_eq!(Step { name: "x[0]".into(), ..Step::default() }.origin(), None);
    }

    #[test]
    fn the_next_endpoint_is_a_healthy_one() {
        let endpoint = |address: &str, health: &str| Endpoint {
            address: address.into(),
            health: health.into(),
            transport: "mTLS".into(),
            workload: None,
        };
        let endpoints = vec![endpoint("10.0.0.1:80", "unhealthy"), endpoint("10.0.0.2:80", "healthy")];
        let mut outcome = Outcome { endpoints, ..Outcome::default() };
        assert_eq!(outcome.next(), Some(("10.0.0.2:80".parse().unwrap(), true)));
        outcome.status = Some(503);
        assert_eq!(outcome.next(), None);
    }
}
