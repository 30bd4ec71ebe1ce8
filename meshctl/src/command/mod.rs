//! One file per command: its `Args`, and `run`.

pub mod config;
pub mod curl;
pub mod grpcping;
pub mod load;
pub mod manual;
pub mod server;
pub mod status;
pub mod version;
