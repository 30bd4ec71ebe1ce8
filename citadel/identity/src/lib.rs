//! Who someone is: SPIFFE ids, the certificates and tokens that prove them, and when to renew a proof.
//!
//! Pure: no I/O, no clock, no runtime; time comes in as an argument, so all of it runs in simulation.
//! The modules, in the order in which an identity meets them:
//! - [`spiffe`]: a SPIFFE id and its trust domain: parse, print
//! - [`san`]: what names of a peer's certificate are acceptable
//! - [`pem`]: PEM text to DER and back
//! - [`csr`]: a fresh key and the PKCS#10 request for it
//! - [`svid`]: a certificate chain with its key
//! - [`bundle`]: the roots that vouch for a trust domain
//! - [`crl`]: certificates that are vouched for no longer
//! - [`verify`]: chain and name check as rustls verifiers
//! - [`enrol`]: when to ask for a certificate
//! - [`jwks`], [`jwt`]: key sets, and tokens checked against them
//! - [`review`]: tokens that a Kubernetes API server checks
//!
//! It never knows where a key is stored, who issues a certificate, or how bytes travel.

pub mod bundle;
pub mod crl;
pub mod csr;
pub mod enrol;
pub mod jwks;
pub mod jwt;
pub mod pem;
pub mod review;
pub mod san;
pub mod spiffe;
pub mod svid;
pub mod verify;

#[cfg(test)]
mod testca;
