//! What a change of objects does to each proxy, before it is applied (CT-61).
//!
//! - [`change`]: resources that differ between two meshes, per proxy
//! - [`lines`]: the difference of two texts
//!
//! Both states are worked out by pilot's own library. Pure.

pub mod change;
pub mod lines;

pub use change::{Change, changes};
