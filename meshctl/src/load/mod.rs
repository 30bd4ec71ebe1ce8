//! The load tool: Fortio's flags, pacing, histogram and reports, and what Fortio lacks.
//!
//! The modules, in the order in which a run meets them:
//! - [`flags`]: flags of requests and connections; one dash made two
//! - [`request`], [`target`]: what is sent to where, as meant
//! - [`plan`]: how many calls, and when each is due
//! - [`run`]: connections on threads, calls in time ([`timer`], [`watchdog`])
//! - [`client`]: one of [`h1`], [`h2`], [`grpc`] and [`echo`] (TCP, UDP), over connections of [`dial`] and [`tls`]
//! - [`reflection`]: what a gRPC method takes, asked of its server
//! - [`record`], [`histogram`]: what calls came to
//! - [`bound`]: what a run must keep for the command to succeed
//! - [`comparison`]: two targets in one run
//! - [`server`]: Fortio's servers, to load
//! - [`report`]: text and JSON, with numbers as Go writes them ([`format`])
//!
//! It never uses the proxy's codec: a fault that both ends shared would not be seen. It knows no mesh: addresses only.

pub mod bound;
pub mod client;
pub mod comparison;
pub mod dial;
pub mod echo;
pub mod flags;
pub mod format;
pub mod grpc;
pub mod h1;
pub mod h2;
pub mod histogram;
pub mod plan;
pub mod record;
pub mod reflection;
pub mod report;
pub mod request;
pub mod run;
pub mod server;
pub mod target;
pub mod timer;
pub mod tls;
pub mod watchdog;
