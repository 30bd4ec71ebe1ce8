//! Istio's and Kubernetes' objects as they are written in YAML, one file per kind.
//!
//! What this part knows: names of fields, their types, which values an enumeration has. Every member of a
//! oneof is an `Option`; pilot's model turns them into enums, and that is the validation.
//! What it must never know: where an object came from, what it means for a proxy, any client of Kubernetes.
//!
//! Unknown fields are errors for Istio's kinds (`deny_unknown_fields`); the core kinds ignore what is not
//! listed here, as real objects carry much that a mesh has no use for. A field that Istio has and that is not
//! supported yet has the type [`Later`]: its mere presence is an error that says so.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares a structure of an Istio kind: every field optional with its default, unknown fields refused.
macro_rules! istio_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_meta])*
            #[doc = concat!("`", stringify!($field), "` as the documentation of Istio's API has it.")]
            pub $field: $ty,)*
        }
    };
}

/// Declares a structure of a core kind: only what the mesh uses, the rest ignored.
macro_rules! core_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_meta])*
            #[doc = concat!("`", stringify!($field), "` as the documentation of Kubernetes' API has it.")]
            pub $field: $ty,)*
        }
    };
}

/// Declares an enumeration written in capitals, as protobuf's JSON has it.
macro_rules! istio_enum {
    ($(#[$meta:meta])* $name:ident { $first:ident $(, $variant:ident)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum $name {
            #[doc = concat!("`", stringify!($first), "`, the default.")]
            #[default]
            $first,
            $(#[doc = concat!("`", stringify!($variant), "`.")]
            $variant,)*
        }
    };
}

pub mod authorization_policy;
pub mod core;
pub mod destination_rule;
pub mod gateway;
pub mod mesh_config;
pub mod meta;
pub mod peer_authentication;
pub mod provider;
pub mod rate_limit;
pub mod request_authentication;
pub mod secret;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;

/// The text of every refusal of something that Istio has and that is not supported yet.
pub const NOT_SUPPORTED_YET: &str = "not supported yet";

/// A field that is not supported yet: its presence is an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Later;

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(NOT_SUPPORTED_YET))
    }
}

/// A duration in Go's or protobuf's form (`1h30m`, `0.5s`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}s", self.0.as_secs_f64()))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::duration::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A port, written as a number or as a text, which protobuf's JSON takes too.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u16),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(port) => Ok(port),
        Written::Text(text) => {
            text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no port: use 1 to 65535")))
        }
    }
}

istio_struct! {
    /// How a text is compared: one of the three.
    #[derive(Eq, Hash)]
    StringMatch {
        exact: Option<String>,
        prefix: Option<String>,
        regex: Option<String>,
    }
}

istio_struct! {
    /// Selection of workloads by labels.
    #[derive(Eq, Hash)]
    WorkloadSelector {
        /// `matchLabels` in the security kinds, `labels` in the networking kinds.
        #[serde(alias = "labels")]
        match_labels: std::collections::BTreeMap<String, String>,
    }
}
