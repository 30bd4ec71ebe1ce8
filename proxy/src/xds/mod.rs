//! Configuration from outside: xDS streams, files, the bootstrap and the last good state on disk, as one feed of batches.
//!
//! Knows: the xDS protocol, which resource needs which other, and in what order they may be used. Must never know: what
//! a resource means for traffic; the stations' `config.rs` say that, and `publish/` brings back what they refuse.
//!
//! In the order in which a resource passes through: [`stream`](mod@stream), `files`, `secret_files` and `fixed` bring it; `session` speaks
//! the protocol with one server, `secure` the TLS under it; `needs` reads what it refers to; `warming` holds it until that
//! is there; `batch` joins what may be used; `sources` says what is wanted of whom; `client` ties them together without I/O; `feed` drives the client; `store`
//! keeps what was accepted, `cache` on disk; `dump` and `certificates` show it.

mod batch;
mod cache;
mod certificates;
mod client;
mod dump;
mod feed;
mod files;
mod fixed;
mod kind;
mod needs;
mod secret_files;
mod secure;
mod session;
mod sources;
mod store;
mod stream;
mod subscription;
mod warming;

pub use batch::{Batch, Cause};
pub use certificates::{CertificateView, SecretView, certificates};
pub use client::{Client, ClientOptions};
pub use dump::{DumpSelection, config_dump, encode as encode_dump};
pub use feed::{Feed, FeedError, FeedHandle, FeedOptions};
pub use kind::Kind;
pub use needs::{Need, Origin};
pub use session::{Flavour, Receipt, Received, Request, Session};
pub use store::{Held, KindStats, Refused, Store};
pub use stream::{Target, TargetAddress, TlsFor};

use bytes::Bytes;
use std::sync::Arc;

/// One named resource as it came from a server, a file or the bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name; empty for the few kinds that have only one.
    pub name: Arc<str>,
    /// Its own version, opaque.
    pub version: Arc<str>,
    /// The encoded message, of the type that its [`Kind`] says.
    pub body: Bytes,
}

/// A change of one kind of resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Which kind.
    pub kind: Kind,
    /// New and changed resources.
    pub added: Vec<Arc<Resource>>,
    /// Names that are gone.
    pub removed: Vec<Arc<str>>,
}

/// One resource that the proxy does not take; the last good one of that name stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Which kind.
    pub kind: Kind,
    /// Name of the resource.
    pub name: Arc<str>,
    /// Path of the field that is wrong; empty when it is the whole.
    pub field: Box<str>,
    /// What is wrong and what would be right.
    pub why: Box<str>,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.name, self.why)
        } else {
            write!(f, "{}: {}: {}", self.name, self.field, self.why)
        }
    }
}
