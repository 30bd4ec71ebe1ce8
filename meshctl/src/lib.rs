//! meshctl: what a person does with a mesh.
//!
//! The modules, in the order in which a command meets them:
//! - [`cli`]: the tree of commands
//! - [`command`]: one file per command, each with `Args` and `run`
//! - [`demo`]: a whole mesh on this machine, and a tour of it with a verdict
//! - [`admin`]: reading a proxy: its admin address, its socket, or a dump file
//! - [`load`]: Fortio's load tool
//! - [`output`]: tables, JSON and YAML for people and scripts
//!
//! It never knows how a proxy or pilot works inside: it sees addresses, sockets and files.

pub mod admin;
pub mod cli;
pub mod command;
pub mod demo;
pub mod load;
pub mod output;
