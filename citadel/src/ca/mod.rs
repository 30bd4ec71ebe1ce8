//! The authority: who may get which certificate, how it is signed, and where the signing key lives.
//!
//! It knows identities, lifetimes and keys. It must never know how a caller was authenticated or over which wire the
//! request came.

pub mod contents;
pub mod keystore;
pub mod policy;
pub mod root;
pub mod rotate;
pub mod secret;
pub mod sign;
