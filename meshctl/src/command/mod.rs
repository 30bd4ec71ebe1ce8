//! One file per command: its `Args`, and `run`.

pub mod config;
pub mod load;
pub mod status;
pub mod version;
