//! Policy: objects of `config.istio.io/v1alpha2` compiled to rules, and the engine that decides by them.
//!
//! - [`code`]: status codes of gRPC, and what HTTP makes of them
//! - [`object`]: files → objects, with file and line
//! - [`instance`]: what a rule takes from a request and gives to an adapter
//! - [`handler`]: a configured adapter; [`deny`], [`list`], [`limits`], [`prometheus`] and [`stdio`] are adapters
//! - [`quota_spec`]: which requests are charged to which quotas
//! - [`sampling`]: which reports are made
//! - [`load`]: objects → compiled policy; a bad object is refused alone and its last good version stays
//! - [`decision`]: what the engine says, and for whom it holds
//! - [`program`]: what a proxy may decide by itself
//! - [`shapes`]: by which parts of a request leases are given
//! - [`engine`]: bag → decision
//! - [`meters`]: what is measured of all this
//! - [`view`]: what a person may want to see of all this
//!
//! What this part must never know: the wire, proxies, where a bag came from.

pub mod code;
pub mod decision;
pub mod deny;
pub mod engine;
pub mod handler;
pub mod instance;
pub mod limits;
pub mod list;
pub mod load;
pub mod meters;
pub mod object;
pub mod program;
pub mod prometheus;
pub mod quota_spec;
pub mod sampling;
pub mod shapes;
pub mod stdio;
pub mod view;

pub use decision::{Decision, Lease};
pub use engine::Engine;
pub use object::Problem;
pub use view::View;
