//! The data plane: sidecar and gateway, configured over xDS v3, one thread per core.
//!
//! The modules in the order in which a connection meets them, from the process down to the bytes; a folder imports
//! only what stands below it (kept by `e2e/tests/architecture.rs`):
//! - [`server`]: the process: order of start, threads, admin interface, drain
//! - [`explain`]: the way of one request through a configuration, without serving it
//! - [`agent`]: the traffic of a node's pods, redirected from outside of them
//! - [`publish`]: accepted resources → immutable parts, to each worker what changed
//! - [`worker`]: one thread with its listeners, clusters, pools and counters
//! - [`listener`]: a connection arrives, is looked into, and finds its filter chain
//! - [`http`], [`tcp`]: one connection: its requests, or its bytes
//! - [`filter`]: what happens to a request on its way, in order
//! - [`upstream`]: attempts, retries, mirrors, and the proxy's own calls
//! - [`cluster`]: where requests go: hosts, limits, balancer and pools together
//! - [`balancer`], [`pool`]: which host; which connection
//! - [`endpoint`], [`route`], [`codec`], [`tls`]: hosts and their health, the route table, HTTP/1 and HTTP/2, secrets
//! - [`xds`], [`telemetry`], [`node`]: the control plane's stream, what is counted and logged, who this proxy is
//! - [`message`], [`net`]: a request and its body; bytes from a socket
//! - [`outcome`], [`refusal`], [`env`]: why a stream ended, why a resource was refused, clock and timers
//! - [`drain`]: how connections leave what goes
//! - [`bootstrap`], [`dns`], [`redirect`]: flags and bootstrap file, the pod's DNS, traffic redirection

pub mod agent;
pub mod explain;
pub mod server;

pub mod publish;

pub mod worker;

pub mod listener;

pub mod http;
pub mod tcp;

pub mod filter;

pub mod upstream;

pub mod cluster;

pub mod balancer;
pub mod codec;
pub mod endpoint;
pub mod pool;
pub mod route;
pub mod tls;

pub mod node;
pub mod telemetry;
pub mod xds;

pub mod message;
pub mod net;

pub mod bootstrap;
pub mod dns;
pub mod drain;
pub mod env;
pub mod outcome;
pub mod redirect;
pub mod refusal;
