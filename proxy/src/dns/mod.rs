//! DNS for the workload: names of the mesh from pilot's name table, everything else from the pod's own servers
//! (spec DN-1…3).
//!
//! Knows names, addresses and the DNS wire format. Must never know clusters or routes: an address that it hands out
//! is matched by the outbound listeners like any other.

mod forward;
mod life;
mod names;
mod serve;

pub use forward::{Forwarder, ResolvConf};
pub use life::life;
pub use names::{Answer, Names, Viewpoint};
pub use serve::{DnsServer, Table, serve};
