//! Which webhook injects what, by the selectors that the API server looks at (CT-17). Pure.
//!
//! - [`hook`]: a webhook configuration, and its verdict about a pod
//! - [`list`]: namespaces and webhooks, and the revisions of pods

pub mod hook;
pub mod list;
