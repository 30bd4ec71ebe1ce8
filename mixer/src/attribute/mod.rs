//! What can be known of a request: names and types of attributes (spec 1.5), the bag that holds their values, and the
//! parts of a request on which an evaluation depended.
//!
//! What this part knows: names, types, values, and from which part of a request each attribute comes.
//! What it must never know: rules, adapters, the wire.

pub mod bag;
pub mod touched;
pub mod value;
pub mod vocabulary;

pub use bag::Bag;
pub use touched::Touched;
pub use value::{Map, Value};
pub use vocabulary::{AttributeId, Type, Vocabulary};
