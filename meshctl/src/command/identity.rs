//! `meshctl identity`: who a proxy proves to be, read from its certificate (CT-47).

use super::config::chains;
use crate::admin::Target;
use crate::output::{self, Format, Table};
use anyhow::Context as _;
use identity::svid::LeafFacts;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use std::time::SystemTime;

/// `meshctl identity`.
///
/// The certificates that the proxy shows to others: the identity, how long it is valid, and the chain up to the root.
///
/// Examples:
///   meshctl identity deploy/productpage-v1
///   meshctl identity productpage-v1-5d4f-x.default -o json
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct IdentityArgs {
    #[command(flatten)]
    target: Target,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Shows the certificates.
///
/// # Errors
/// Where the proxy does not answer, or has no certificate.
pub async fn run(args: IdentityArgs) -> anyhow::Result<()> {
    let dump = args.target.json("/config_dump").await?;
    let (table, values) = show(&chains(&dump), SystemTime::now())?;
    output::show(args.output, &table, &Value::Array(values))
}

/// A row for each fact; a value for each certificate, each leaf before what signed it.
fn show(chains: &[Vec<CertificateDer<'static>>], now: SystemTime) -> anyhow::Result<(Table, Vec<Value>)> {
    anyhow::ensure!(!chains.is_empty(), "the proxy has no certificate yet: meshctl check says whether citadel answers");
    let mut table = Table::new(&["CERTIFICATE", "FACT", "VALUE"]);
    let mut values = Vec::new();
    for (nth, chain) in chains.iter().enumerate() {
        for (depth, der) in chain.iter().enumerate() {
            let facts = LeafFacts::read(der).context("a certificate of the proxy cannot be read")?;
            let name = if depth == 0 { format!("{nth}") } else { format!("{nth}, signer {depth}") };
            let value = described(&facts, now);
            for (fact, value) in value.as_object().into_iter().flatten() {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                table.row([name.as_str(), fact.as_str(), shown.as_str()]);
            }
            values.push(value);
        }
    }
    Ok((table, values))
}

fn described(facts: &LeafFacts, now: SystemTime) -> Value {
    let date =
        |time| Timestamp::try_from(time).map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default();
    let life = facts.lifetime;
    let state = match (now < life.not_before, life.not_after.duration_since(now)) {
        (true, _) => "not yet".to_owned(),
        (false, Ok(left)) => format!("for {} more minutes", left.as_secs() / 60),
        (false, Err(_)) => "expired".to_owned(),
    };
    let mut value = json!({
        "not after": date(life.not_after),
        "not before": date(life.not_before),
        "serial": facts.serial,
        "sha256": facts.fingerprint,
        "valid": state,
    });
    let names =
        [("identity", facts.uris.join(", ")), ("dns", facts.dns.join(", ")), ("subject", facts.subject.clone())];
    for (fact, text) in names.into_iter().filter(|(_, text)| !text.is_empty()) {
        value[fact] = text.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use citadel::ca::keystore::Keystore;
    use citadel::ca::policy::Policy;
    use citadel::ca::sign;
    use identity::csr::Csr;
    use identity::pem;
    use identity::spiffe::{SpiffeId, TrustDomain};
    use std::time::Duration;

    // spec: CT-47
    #[test]
    fn a_certificate_tells_who_it_is_of_and_how_long() {
        let directory = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let now = SystemTime::now();
        let authority = Keystore::new(directory.path(), domain.clone()).load_or_create(now).unwrap();
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let grant = Policy::new(domain).grant(&id, 3600).unwrap();
        let chain = sign::sign(&authority, &Csr::generate(&id).unwrap().pem, &grant, now).unwrap();
        let chain: Vec<_> = chain.iter().flat_map(|one| pem::certificates(one.as_bytes()).unwrap()).collect();
        let (table, values) = show(std::slice::from_ref(&chain), now).unwrap();
        assert_eq!(values.len(), chain.len());
        assert_eq!(values[0]["identity"], id.as_str());
        assert!(values[0]["valid"].as_str().unwrap().ends_with("more minutes"), "{values:?}");
        assert!(table.lines().iter().any(|line| line.contains("identity") && line.ends_with(id.as_str())));
        let late = show(&[chain], now + Duration::from_secs(7200)).unwrap().1;
        assert_eq!(late[0]["valid"], "expired");
        assert!(show(&[], now).unwrap_err().to_string().contains("meshctl check"));
    }
}
