//! citadel: the certificate authority of the mesh.
//!
//! The modules, in the order in which a certificate request meets them:
//! - [`serve`]: the certificate service over TLS, and the process around it
//! - [`authenticate`]: who the caller is: a client certificate or a token
//! - [`ca`]: who may get what, signing, the signing key and its rotation
//! - [`bundle`]: the roots, handed out to those who must trust them
//! - [`agent`]: certificates for a real Envoy beside it, over SDS on a Unix socket
//! - [`token`]: bootstrap tokens where no Kubernetes issues them
//! - [`watch_files`]: files that change under a running process
//!
//! citadel trusts nobody's code but its own: it knows neither proxies nor pilot, and never sees a workload's key.

pub mod agent;
pub mod authenticate;
pub mod bundle;
pub mod ca;
pub mod serve;
pub mod token;
pub mod watch_files;
