//! Golden figures out of Istio's metrics, as mixer merges them over all proxies (CT-41, CT-42, CT-44).
//!
//! - [`scrape`]: one answer of `/metrics`
//! - [`window`]: what happened between two of them
//! - [`figures`]: rates, success, latencies of a group of requests
//! - [`resource`]: which group a request belongs to
//! - [`edge`]: who speaks to whom, and whether mutual TLS protects it
//!
//! All of it is pure: the commands ask mixer.

pub mod edge;
pub mod figures;
pub mod resource;
pub mod scrape;
pub mod window;

pub use figures::Figures;
pub use resource::Resource;
pub use scrape::{Labels, Scrape};
pub use window::Window;
