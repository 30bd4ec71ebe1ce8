//! pilot: from objects to what every proxy is told.
//!
//! The tour, in the order in which a piece of configuration meets them:
//! - [`source`]: objects out of YAML, with their last good version
//! - [`registry`]: objects → services and endpoints
//! - [`model`]: the immutable mesh; parsing an object into its model type is its validation
//! - [`translate`]: one input struct → one Envoy resource; the struct is the cache key
//! - [`delivery`]: what a change affects, and who must be told
//! - [`ads`]: the xDS protocol, delta and state of the world
//! - [`inject`]: a pod → the pod with its proxy; a side road, pure
//! - [`admission`]: what the API server asks before it stores a pod or an object
//! - [`status`]: what became of each object, written where its user looks
//! - [`trust`]: on Kubernetes, pilot's own certificate and the roots in every namespace
//! - [`args`], [`server`]: flags, and the wiring of the parts

pub mod admission;
pub mod ads;
pub mod args;
pub mod delivery;
pub mod inject;
pub mod model;
pub mod registry;
pub mod server;
pub mod source;
pub mod status;
pub mod translate;
pub mod trust;
