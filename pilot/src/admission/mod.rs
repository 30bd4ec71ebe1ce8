//! Webhooks: what the API server asks before it stores a pod or an object of the mesh (port 15017).
//!
//! What this part knows: AdmissionReview, TLS of the port, the objects by which the API server finds it. What it must
//! never know: how a pod is injected ([`crate::inject`]) or what makes an object valid ([`crate::model`]); it asks them,
//! so that its answer is that of `meshctl` and of a directory of files.

mod bundle;
mod inject;
pub mod metrics;
mod probe;
mod review;
mod serve;
mod settings;
mod validate;

pub use bundle::{Bundle, refuses_what_is_invalid};
pub use probe::until_it_answers;
pub use serve::{Webhooks, serve};
pub use settings::{NativeSidecars, Origin, every_node_knows_native, follow, read};

#[cfg(test)]
mod tests;
