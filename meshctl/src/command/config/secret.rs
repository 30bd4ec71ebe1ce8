//! `proxy-config secret` (spec CT-7).

use super::{Shown, items, member, path, sections, text};
use crate::output::Table;
use base64::Engine;
use identity::pem;
use identity::svid::LeafFacts;
use jiff::Timestamp;
use proto::wire::{SECRET_DEFAULT, SECRET_ROOT};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use std::time::SystemTime;

/// Certificates and roots, a row per certificate.
pub(super) fn show(dump: &Value, now: SystemTime) -> Shown {
    let mut table = Table::new(&[
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
        "TRUST DOMAIN",
    ]);
    let mut values = Vec::new();
    for section in sections(dump, "SecretsConfigDump") {
        let states = [
            ("static_secrets", "ACTIVE"),
            ("dynamic_active_secrets", "ACTIVE"),
            ("dynamic_warming_secrets", "WARMING"),
        ];
        for (list, status) in states {
            for entry in items(section, list) {
                rows(&mut table, entry, status, now);
                values.push(entry.clone());
            }
        }
    }
    (table, values)
}

fn rows(table: &mut Table, entry: &Value, status: &str, now: SystemTime) {
    let secret = member(entry, "secret");
    let name = text(&entry["name"]);
    let chain = inline(path(secret, &["tls_certificate", "certificate_chain"]));
    let (kind, certificates) = match chain.is_empty() {
        false => ("Cert Chain", chain.into_iter().take(1).collect()),
        true => ("CA", inline(path(secret, &["validation_context", "trusted_ca"]))),
    };
    if certificates.is_empty() {
        table.row([name, kind, status, "false"]);
    }
    for facts in certificates {
        let valid = facts.lifetime.not_before <= now && now <= facts.lifetime.not_after;
        let domain = facts.id.as_ref().map(|id| id.trust_domain().as_str()).unwrap_or_default();
        let (after, before) = (date(facts.lifetime.not_after), date(facts.lifetime.not_before));
        table.row([name, kind, status, if valid { "true" } else { "false" }, &facts.serial, &after, &before, domain]);
    }
}

/// The workload's certificate, by which other workloads know the proxy: a gateway has others for its hosts.
pub(super) fn chains(dump: &Value) -> Vec<Vec<CertificateDer<'static>>> {
    let entries = sections(dump, "SecretsConfigDump").flat_map(|section| items(section, "dynamic_active_secrets"));
    let own = entries.filter(|entry| text(&entry["name"]) == SECRET_DEFAULT);
    let chains =
        own.map(|entry| certificates(path(member(entry, "secret"), &["tls_certificate", "certificate_chain"])));
    chains.filter(|chain| !chain.is_empty()).collect()
}

/// The roots of the mesh that a proxy trusts.
pub(super) fn roots(dump: &Value) -> Vec<CertificateDer<'static>> {
    let entries = sections(dump, "SecretsConfigDump").flat_map(|section| items(section, "dynamic_active_secrets"));
    let roots = entries.filter(|entry| text(&entry["name"]) == SECRET_ROOT);
    roots.flat_map(|entry| certificates(path(member(entry, "secret"), &["validation_context", "trusted_ca"]))).collect()
}

/// What the certificates of an inline data source say.
fn inline(source: &Value) -> Vec<LeafFacts> {
    certificates(source).iter().filter_map(|der| LeafFacts::read(der).ok()).collect()
}

/// The certificates of an inline data source: base64 of PEM in bytes, or PEM in a string.
fn certificates(source: &Value) -> Vec<CertificateDer<'static>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text(member(source, "inline_bytes")));
    let pem_text = match bytes {
        Ok(bytes) if !bytes.is_empty() => bytes,
        _ => text(member(source, "inline_string")).as_bytes().to_vec(),
    };
    pem::certificates(&pem_text).unwrap_or_default()
}

fn date(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;
    use citadel::ca::keystore::Keystore;
    use citadel::ca::policy::Policy;
    use citadel::ca::sign;
    use identity::csr::Csr;
    use identity::spiffe::{SpiffeId, TrustDomain};
    use serde_json::json;
    use std::time::Duration;

    // spec: CT-7
    #[test]
    fn certificates_show_their_life_and_trust_domain() {
        let directory = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let now = SystemTime::now();
        let authority = Keystore::new(directory.path(), domain.clone()).load_or_create(now).unwrap();
        let id = SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap();
        let grant = Policy::new(domain).grant(&id, 3600).unwrap();
        let chain = sign::sign(&authority, &Csr::generate(&id).unwrap().pem, &grant, now).unwrap();
        let bytes = |pem: &str| json!({"inline_bytes": base64::engine::general_purpose::STANDARD.encode(pem)});
        let dump = json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "dynamic_active_secrets": [
                {"name": "kubernetes://shop", "secret": {"tls_certificate": {"certificate_chain": bytes(&chain[1])}}},
                {"name": "default", "secret": {"name": "default", "tls_certificate": {"certificate_chain": bytes(&chain[0])}}},
                {"name": "ROOTCA", "secret": {"validation_context": {"trusted_ca": bytes(&chain[1])}}},
            ],
            "dynamic_warming_secrets": [{"name": "late"}],
        }]});
        let lines = show(&dump, now).0.lines();
        assert_eq!(
            words(&lines[0]),
            "RESOURCE NAME|TYPE|STATUS|VALID CERT|SERIAL NUMBER|NOT AFTER|NOT BEFORE|TRUST DOMAIN"
        );
        let facts = LeafFacts::read(&pem::certificates(chain[0].as_bytes()).unwrap()[0]).unwrap();
        let (after, before) = (date(facts.lifetime.not_after), date(facts.lifetime.not_before));
        let expected = format!("default|Cert Chain|ACTIVE|true|{}|{after}|{before}|cluster.local", facts.serial);
        assert!(words(&lines[1]).starts_with("kubernetes://shop|Cert Chain|ACTIVE|true|"));
        assert_eq!(words(&lines[2]), expected);
        let own: Vec<_> = chains(&dump).iter().map(|chain| LeafFacts::read(&chain[0]).unwrap().serial).collect();
        assert_eq!(own, [facts.serial], "what a gateway shows for its hosts is not its identity");
        assert!(words(&lines[3]).starts_with("ROOTCA|CA|ACTIVE|true|"));
        assert_eq!(words(&lines[4]), "late|CA|WARMING|false");
        let late = show(&dump, now + Duration::from_secs(7200)).0.lines();
        assert!(words(&late[2]).starts_with("default|Cert Chain|ACTIVE|false|"));
    }
}
