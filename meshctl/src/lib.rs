//! meshctl: what a person does with a mesh.
//!
//! The modules, in the order in which a command meets them:
//! - [`cli`]: the tree of commands
//! - [`command`]: one file per command, each with `Args` and `run`
//! - [`demo`]: a whole mesh on this machine, and a tour of it with a verdict
//! - [`admin`]: reading a proxy: its admin address, its socket, or a dump file
//! - [`load`]: Fortio's load tool
//! - [`reach`]: where pilot, citadel, mixer and the proxies answer
//! - [`explain`]: what becomes of a request
//! - [`offline`]: a mesh out of files, before it is applied
//! - [`live`]: the same out of what a cluster holds
//! - [`describe`]: what the mesh does with a pod or a service
//! - [`stat`]: golden figures out of Istio's metrics
//! - [`tap`]: requests as they pass
//! - [`check`]: whether a mesh is well
//! - [`analyze`]: what is wrong with objects, in Istio's codes
//! - [`diff`]: what a change does to each proxy
//! - [`bug_report`]: what somebody else needs to help
//! - [`injector`]: which webhook injects what
//! - [`install`]: the mesh on Kubernetes
//! - [`output`]: tables, JSON and YAML for people and scripts
//!
//! It never knows how a proxy or pilot works inside: it sees addresses, sockets and files. What pilot would make of files
//! it asks pilot's own library, what a proxy would decide the program `proxy`.

pub mod admin;
pub mod analyze;
pub mod bug_report;
pub mod check;
pub mod cli;
pub mod command;
pub mod demo;
pub mod describe;
pub mod diff;
pub mod explain;
pub mod injector;
pub mod install;
pub mod live;
pub mod load;
pub mod offline;
pub mod output;
pub mod reach;
pub mod stat;
pub mod tap;
