//! How a process of the mesh gets its certificate, keeps it fresh, and serves by it: the I/O around `identity`.
//!
//! Proxies, pilot, mixer and citadel's agent use it alike; who someone is and when a proof is renewed is decided in
//! `identity`.
//! - [`client`]: one request to the certificate service
//! - [`keep`]: a certificate that stays fresh, and outlives the process and its CA
//! - [`accept`]: connections to a server, with the identity that their certificates prove
//! - [`dial`]: connections to another server of the mesh, with the own certificate
//! - [`stream`]: plain text or TLS
//! - [`tokens`], [`kubernetes`]: callers with a bearer token, which a key set or an API server checks (feature `tokens`)
//!
//! It never knows what is served, and never signs anything.

pub mod accept;
pub mod client;
pub mod dial;
pub mod keep;
#[cfg(feature = "tokens")]
pub mod kubernetes;
pub mod stream;
#[cfg(feature = "tokens")]
pub mod tokens;

pub use client::{Config, Credentials, host_of};
pub use keep::keep_fresh;
