//! What a gRPC client or server is told that speaks xDS itself, without a proxy (PI-28).
//!
//! Such a client asks by name: a listener `host:port` that leads to the routes `outbound|port||host`, these to
//! clusters, these to endpoints. It refuses what it does not know, so it is told only what gRPC reads.

mod cluster;
mod inputs;
mod listener;
mod route;

pub use cluster::cluster;
pub use inputs::{GrpcClusterInput, GrpcListenerInput, GrpcServerInput};
pub use listener::{client, server};
pub use route::routes;
