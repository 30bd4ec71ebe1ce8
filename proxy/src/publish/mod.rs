//! Accepted resources → immutable parts → workers. Main thread.
//!
//! Knows every station's `config.rs` and the workers' inboxes. Must never know how resources arrive.

mod build;
mod deliver;
mod resolve;
mod sockets;

pub use build::Publisher;
pub use deliver::Workers;
