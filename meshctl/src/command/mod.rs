//! One file per command: its `Args`, and `run`.

pub mod analyze;
pub mod bug_report;
pub mod check;
pub mod check_inject;
pub mod config;
pub mod curl;
pub mod dashboard;
pub mod describe;
pub mod diff;
pub mod edges;
pub mod explain;
pub mod grpcping;
pub mod injector;
pub mod install;
pub mod kube_inject;
pub mod load;
pub mod log;
pub mod manual;
pub mod server;
pub mod stat;
pub mod status;
pub mod tag;
pub mod tap;
pub mod top;
pub mod version;
