//! The transport socket of a cluster (DR-34, DR-35, MT-1, MT-7).

use super::super::inputs::{ClusterInput, Part};
use super::super::message::{structure, text};
use super::super::policy::Policy;
use super::super::tls::{self, Target};
use super::http;
use proto::envoy::cluster::Cluster;
use proto::envoy::cluster::cluster::{LbPolicy, TransportSocketMatch};
use proto::envoy::core::TransportSocket;
use proto::envoy::upstream_http::HttpProtocolOptions;
use proto::envoy::wkt::Struct;
use proto::istio::destination_rule::ClientTlsMode;

/// The transport socket; returns whether the ALPN of the mesh must not be used (DR-34, DR-35, MT-1, MT-7).
pub(super) fn secure(
    cluster: &mut Cluster,
    options: &mut HttpProtocolOptions,
    input: &ClusterInput,
    policy: &Policy,
) -> bool {
    let Part { service, port, .. } = &input.part;
    let target = Target {
        port: *port,
        subset: input.part.subset_name(),
        host: &service.key.host,
        http2: input.part.protocol().is_http2(),
    };
    let Some(settings) = &policy.tls else {
        if input.mesh.enable_auto_mtls && !service.external {
            let mesh = tls::mesh_client(&target, &input.identities, None);
            if cluster.lb_policy == i32::from(LbPolicy::ClusterProvided) {
                cluster.transport_socket = Some(mesh);
            } else {
                cluster.transport_socket_matches = matches(mesh);
            }
        }
        return false;
    };
    match settings.mode {
        ClientTlsMode::Disable => false,
        ClientTlsMode::IstioMutual => {
            let own = &settings.subject_alt_names;
            let names = if own.is_empty() { &input.identities } else { own };
            cluster.transport_socket = Some(tls::mesh_client(&target, names, Some(&settings.sni)));
            false
        }
        // A rule for all, whose secret is for gateways: sidecars speak plainly, as Istio's do.
        ClientTlsMode::Simple | ClientTlsMode::Mutual
            if !settings.credential_name.is_empty()
                && !input.part.rule.as_ref().is_some_and(|rule| tls::gives_secrets(rule, input.role)) =>
        {
            false
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            cluster.transport_socket = tls::rule_client(settings, &target, &service.subject_alt_names);
            if settings.sni.is_empty() {
                http::auto_sni(options, settings.subject_alt_names.is_empty() && service.subject_alt_names.is_empty());
            }
            true
        }
    }
}

/// Mesh mTLS for endpoints that accept it, plain for the others (MT-7, NM-11).
fn matches(mesh: TransportSocket) -> Vec<TransportSocketMatch> {
    vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(structure([("tlsMode", text("istio"))])),
            transport_socket: Some(mesh),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(Struct::default()),
            transport_socket: Some(tls::raw_buffer()),
        },
    ]
}
