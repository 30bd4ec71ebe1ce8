//! `meshctl explain`: what becomes of one request, in one story (D14, CT-60).
//!
//! - [`story`]: what `proxy explain` says, with the file and line of each object
//! - [`program`]: running `proxy explain`
//! - [`source`]: where configurations come from: a running pilot, or a directory
//! - [`journey`]: first the proxy that asks, then the one that is asked
//! - [`text`]: the story for people
//!
//! What decides is the proxy's own code: nothing of it is repeated here.

pub mod journey;
pub mod program;
pub mod source;
pub mod story;
pub mod text;

pub use journey::{Journey, Request, Verdict};
pub use program::Program;
pub use source::{Running, Source};
