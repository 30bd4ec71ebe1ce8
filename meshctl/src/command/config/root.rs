//! `proxy-config rootca-compare` (spec CT-8).

use super::{dump, secret};
use crate::output;
use crate::reach::{At, Reach, Wanted};
use anyhow::Context as _;
use rustls_pki_types::CertificateDer;
use std::process::ExitCode;

/// Which two proxies.
#[derive(Debug, clap::Args)]
pub(super) struct RootArgs {
    /// A pod or workload.
    first: Wanted,
    /// Another one.
    second: Wanted,
    #[command(flatten)]
    at: At,
    /// Namespace of names without one.
    #[arg(short, long)]
    namespace: Option<String>,
}

/// Says in istioctl's words whether the two trust a common root; exit code 1 where they do not.
pub(super) async fn compare(args: &RootArgs) -> anyhow::Result<ExitCode> {
    let reach = args.at.reach().await;
    let (first, own) = roots(&reach, &args.first, args.namespace.as_deref()).await?;
    let (second, other) = roots(&reach, &args.second, args.namespace.as_deref()).await?;
    let (identical, available, code) = match have_common(&own, &other) {
        true => ("identical", "available", ExitCode::SUCCESS),
        false => ("non identical", "unavailable", ExitCode::FAILURE),
    };
    output::say(&format!(
        "Both [{first}] and [{second}] have the {identical} ROOTCA, theoretically the connectivity between them is {available}"
    ))?;
    Ok(code)
}

/// Name and roots of the proxy beside the first pod that is meant.
async fn roots(
    reach: &Reach,
    wanted: &Wanted,
    namespace: Option<&str>,
) -> anyhow::Result<(String, Vec<CertificateDer<'static>>)> {
    let pods = reach.pods(wanted, namespace).await?;
    let pod = pods.first().context("no pod")?;
    let roots = secret::roots(&dump(reach, pod).await?);
    anyhow::ensure!(!roots.is_empty(), "the proxy of {} has no roots yet: meshctl check says why", pod.id());
    Ok((pod.id(), roots))
}

fn have_common(own: &[CertificateDer<'_>], other: &[CertificateDer<'_>]) -> bool {
    own.iter().any(|root| other.contains(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use citadel::ca::root::{CaKey, self_signed};
    use identity::spiffe::TrustDomain;
    use serde_json::{Value, json};
    use std::time::SystemTime;

    /// PEM of a new root.
    fn root() -> String {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        self_signed(&CaKey::generate().unwrap(), &domain, SystemTime::now()).unwrap()
    }

    fn dump(roots: &[&str]) -> Value {
        let pem = base64::engine::general_purpose::STANDARD.encode(roots.concat());
        let secret =
            |name: &str| json!({"name": name, "secret": {"validation_context": {"trusted_ca": {"inline_bytes": pem}}}});
        json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "dynamic_active_secrets": [secret("ROOTCA"), secret("kubernetes://of-a-gateway")],
        }]})
    }

    // spec: CT-8
    #[test]
    fn two_proxies_trust_each_other_where_one_root_is_common() {
        let (old, new, foreign) = (root(), root(), root());
        let of = |roots: &[&str]| secret::roots(&dump(roots));
        assert_eq!(of(&[&old, &new]).len(), 2, "the gateway's own are none of the mesh");
        assert!(have_common(&of(&[&old, &new]), &of(&[&new])), "a root is being replaced");
        assert!(!have_common(&of(&[&old, &new]), &of(&[&foreign])));
        assert!(of(&[]).is_empty());
    }
}
