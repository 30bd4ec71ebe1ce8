//! Bytes between two addresses, and what is known of the two ends.
//!
//! Knows sockets and TLS records. Must never know a message, a route or a cluster.

mod config;
mod facts;
mod io;
pub mod sim;
mod tls_io;

pub use config::{Service, bind_mark};
pub use facts::{CertFacts, PeerFacts, TlsFacts};
pub use io::{Io, Liveness};
pub use tls_io::{Session, TlsIo};
