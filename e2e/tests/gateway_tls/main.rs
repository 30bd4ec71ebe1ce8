//! Gateways with TLS secrets: real Envoy and our proxy, told by our pilot over both forms of the protocol.
//!
//! Four hosts on one port by their SNI: SIMPLE, MUTUAL, PASSTHROUGH, and one whose secret comes late. Each proxy must do the
//! same.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

mod client;
mod mesh;
mod pki;

use client::{Client, Outcome};
use e2e::proxies::Flavour;
use mesh::{Form, Mesh};
use pki::Pki;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many requests the load is made of at least.
const REQUESTS: u64 = 600;
/// How often the certificate is changed under load.
const ROTATIONS: u32 = 10;

// spec: GW-6, GW-7, GW-10, GW-12, GW-19, GW-21, CA-26, CA-27, SA-31
#[test]
fn four_hosts_of_one_port_by_name() {
    let (pki, mut answers) = (Arc::new(Pki::new()), Vec::new());
    for (flavour, form) in [
        (Flavour::Envoy, Form::Delta),
        (Flavour::Envoy, Form::StateOfTheWorld),
        (Flavour::Ferromesh, Form::Delta),
        (Flavour::Ferromesh, Form::StateOfTheWorld),
    ] {
        let mesh = Mesh::start(&pki, flavour, form);
        let seen = walk(&mesh);
        println!("{flavour:?} {form:?}: as it must be");
        answers.push(seen);
        rotate(&mesh, flavour, form);
    }
    let (first, rest) = answers.split_first().unwrap();
    for other in rest {
        assert_eq!(first, other, "every proxy says the same of a client's certificate");
    }
}

/// Every host with every kind of client; what the upstream is told of a client's certificate.
fn walk(mesh: &Mesh) -> Option<String> {
    let nobody = Client::new(&mesh.pki, None);
    let right = Client::new(&mesh.pki, Some(&mesh.pki.client));
    let wrong = Client::new(&mesh.pki, Some(&mesh.pki.stranger));
    let ask = |client: &Client, host: &str| client.ask(mesh.address, host, "x-forwarded-client-cert: By=forged\r\n");

    let simple = mesh.until(|| ask(&nobody, "a.example").answer());
    assert_eq!((simple.status, simple.certificate.as_str()), (200, mesh.first("a.example")));
    assert_eq!(simple.forwarded, None, "what the client says of itself is not believed");

    let mutual = mesh.until(|| ask(&right, "b.example").answer());
    assert_eq!((mutual.status, mutual.certificate.as_str()), (200, mesh.first("b.example")));
    let forwarded = mutual.forwarded.unwrap();
    for part in ["Subject=\"CN=client\"", "URI=spiffe://outside/client", "DNS=client.example", "Cert=\"-----BEGIN"] {
        assert!(forwarded.contains(part), "{part} in {forwarded}");
    }
    assert!(!forwarded.contains("forged"), "{forwarded}");
    assert_eq!(nobody.knock(mesh.address, "b.example"), Outcome::Alert("CertificateRequired".into()));
    let refused = wrong.knock(mesh.address, "b.example");
    assert!(matches!(refused, Outcome::Alert(_)), "a client of other authorities: {refused:?}");
    println!("a client of other authorities: {refused:?}");
    assert_eq!((ask(&nobody, "b.example").answer(), ask(&wrong, "b.example").answer()), (None, None));

    let passed = mesh.until(|| ask(&nobody, "c.example").answer());
    assert_eq!((passed.status, passed.certificate.as_str()), (200, mesh.first("c.example")), "the upstream's own");

    // One secret is not there yet: its host is closed, the others serve.
    assert_eq!(ask(&nobody, "d.example"), Outcome::Closed);
    assert_eq!(ask(&nobody, "other.example"), Outcome::Closed, "no chain has this name");
    mesh.lacks("credentialName", "has no Secret d");
    mesh.write_secret("d", &mesh.pki.site("d.example"), None);
    let late = mesh.until(|| ask(&nobody, "d.example").answer());
    assert_eq!(late.status, 200);
    mesh.remove_secret("d");
    mesh.lacks("credentialName", "has no Secret d");
    assert!(ask(&nobody, "d.example").answer().is_some(), "what is in use stays in use");
    Some(forwarded)
}

/// Certificates change under load: nobody notices but by the certificate.
fn rotate(mesh: &Mesh, flavour: Flavour, form: Form) {
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = |kept: bool| {
        let (stop, asked, address) = (Arc::clone(&stop), Arc::clone(&asked), mesh.address);
        let client = Client::new(&mesh.pki, Some(&mesh.pki.client));
        std::thread::spawn(move || {
            let mut failed = Vec::new();
            let mut open = kept.then(|| client.open(address, "b.example").unwrap());
            while !stop.load(Ordering::Relaxed) {
                let outcome = match &mut open {
                    Some(connection) => connection.ask("b.example"),
                    None => client.ask(address, "a.example", ""),
                };
                asked.fetch_add(1, Ordering::Relaxed);
                if !matches!(&outcome, Outcome::Answer(answer) if answer.status == 200) {
                    failed.push(outcome);
                }
            }
            failed
        })
    };
    let threads = [load(true), load(false), load(false)];
    let nobody = Client::new(&mesh.pki, None);
    let mut slowest = Duration::ZERO;
    for _ in 0..ROTATIONS {
        let site = mesh.pki.site("a.example");
        let began = Instant::now();
        mesh.write_secret("a", &site, None);
        mesh.write_secret("b", &mesh.pki.site("b.example"), Some(&mesh.pki.client_roots));
        mesh.until(|| {
            let answer = nobody.ask(mesh.address, "a.example", "").answer()?;
            (answer.certificate == site.fingerprint).then_some(())
        });
        slowest = slowest.max(began.elapsed());
        let until = asked.load(Ordering::Relaxed) + REQUESTS / u64::from(ROTATIONS);
        mesh.until(|| (asked.load(Ordering::Relaxed) >= until).then_some(()));
    }
    // A broken one changes nothing, and is said.
    let current = nobody.ask(mesh.address, "a.example", "").answer().unwrap().certificate;
    let mut broken = mesh.pki.site("a.example");
    broken.key = mesh.pki.client.key.clone();
    mesh.write_secret("a", &broken, None);
    mesh.lacks("credentialName", "the version before stays in force");
    assert_eq!(nobody.ask(mesh.address, "a.example", "").answer().unwrap().certificate, current);
    stop.store(true, Ordering::Relaxed);
    let failed: Vec<Outcome> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let asked = asked.load(Ordering::Relaxed);
    assert!(failed.is_empty(), "{flavour:?} {form:?}: {} of {asked} failed: {:?}", failed.len(), failed.first());
    println!("{flavour:?} {form:?}: {ROTATIONS} rotations, the slowest in {slowest:?}; 0 of {asked} requests failed");
}
