//! Traffic redirection: the netfilter rules that bring a workload's traffic to its sidecar (`proxy redirect`, `proxy unredirect`).
//!
//! Knows flags, annotations and iptables. Must never know what the proxy does with a connection; the two only share
//! port numbers. Chains, order and flags are those of `istio-iptables` (spec IP-1…7, IP-9, IP-11).

mod apply;
mod args;
mod plan;
mod prove;

pub use apply::{ApplyError, apply, cleanup, is_applied, run};
pub use args::{Annotations, Mode, Ports, RedirectArgs, RedirectError, Selection};
pub use plan::{Plan, plan};
pub use prove::{EXIT_UNPROVEN, own_address};
