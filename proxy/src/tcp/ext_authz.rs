//! `envoy.filters.network.ext_authz`: asks a service whether a connection may pass (XT-4).
//!
//! It asks when the connection is accepted, where Envoy waits for the first byte: nothing reaches an upstream before the
//! service has spoken, also where the server speaks first.

use crate::env::Instant;
use crate::filter::Facts;
use crate::filter::ext_authz::grpc;
use crate::message::Metadata;
use crate::message::matcher::MetadataMatcher;
use crate::net::{PeerFacts, Service};
use crate::outcome::{Outcome, Reason};
use crate::refusal::{Refusal, Within};
use proto::any;
use proto::envoy::auth::attribute_context::TlsSession;
use proto::envoy::auth::{AttributeContext, CheckRequest};
use proto::envoy::network_filters::ext_authz::v3::ExtAuthz as Written;
use proto::envoy::wkt::Any;
use std::time::Duration;

/// Configuration.
#[derive(Debug)]
pub struct ExtAuthz {
    service: Service,
    /// Let the connection pass where the service fails (`failure_mode_allow`).
    allow_on_error: bool,
    include_tls_session: bool,
    /// Which connections are checked, by what a filter before this one left; none: all.
    enabled: Option<MetadataMatcher>,
}

/// Envoy's limit where none is written.
const TIMEOUT: Duration = Duration::from_millis(200);

impl ExtAuthz {
    /// Parses the filter.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn parse(typed: &Any) -> Result<Self, Refusal> {
        let written: Written = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
        let refused = [
            ("include_peer_certificate", written.include_peer_certificate),
            ("bootstrap_metadata_labels_key", !written.bootstrap_metadata_labels_key.is_empty()),
            ("send_tls_alert_on_denial", written.send_tls_alert_on_denial),
            ("metadata_context_namespaces", !written.metadata_context_namespaces.is_empty()),
            ("typed_metadata_context_namespaces", !written.typed_metadata_context_namespaces.is_empty()),
            ("shadow_mode", written.shadow_mode),
        ];
        if let Some((field, _)) = refused.iter().find(|(_, written)| *written) {
            return Err(Refusal::unsupported(*field));
        }
        let enabled = written.filter_enabled_metadata.as_ref().map(MetadataMatcher::parse);
        Ok(Self {
            service: Service::parse(written.grpc_service.as_ref())?,
            allow_on_error: written.failure_mode_allow,
            include_tls_session: written.include_tls_session,
            enabled: enabled.transpose().within("filter_enabled_metadata")?,
        })
    }

    /// Whether the connection may pass.
    pub async fn allows(&self, peer: &PeerFacts, left: &Metadata, facts: &Facts) -> bool {
        if self.enabled.as_ref().is_some_and(|enabled| !enabled.matches(Some(left))) {
            return true;
        }
        let timeout = self.service.timeout.unwrap_or(TIMEOUT);
        let deadline = Instant::now() + timeout;
        let session = || TlsSession { sni: peer.sni.to_string() };
        let question = CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(grpc::peer(peer.remote, peer.peer_id())),
                destination: Some(grpc::peer(peer.local, peer.local_id())),
                tls_session: (self.include_tls_session && peer.tls.is_some()).then(session),
                ..AttributeContext::default()
            }),
        };
        let asked = async {
            let cluster = facts.clusters.get(&self.service.cluster).ok_or(Reason::UnknownCluster)?;
            grpc::ask(&cluster, &self.service.authority, &question, (timeout, deadline)).await
        };
        let timed_out = |_| Err(Outcome::from(Reason::RouteTimeout));
        match tokio::time::timeout_at(deadline, asked).await.unwrap_or_else(timed_out) {
            Ok(answer) => answer.status.is_some_and(|status| status.code == 0),
            Err(outcome) => {
                tracing::debug!(cluster = &*self.service.cluster, %outcome, "the authorization service fails");
                self.allow_on_error
            }
        }
    }
}
