//! Circuit breakers: exact limits in flight, shared by all workers (spec LB-12, DR-21, DR-25, DR-27).

use crate::outcome::{Outcome, Reason};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Open upstream connections.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

impl Limit {
    /// Its field in `CircuitBreakers.Thresholds`.
    fn field(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Pending => "max_pending_requests",
            Self::Requests => "max_requests",
            Self::Retries => "max_retries",
        }
    }
}

/// The maxima of one priority; `u32::MAX` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// `max_connections`
    pub connections: u32,
    /// `max_pending_requests`
    pub pending: u32,
    /// `max_requests`
    pub requests: u32,
    /// `max_retries`
    pub retries: u32,
}

impl Default for Thresholds {
    /// Envoy's own defaults (LB-12).
    fn default() -> Self {
        Self { connections: 1024, pending: 1024, requests: 1024, retries: 3 }
    }
}

/// The breakers of one cluster and priority.
#[derive(Debug)]
pub struct Limits {
    max: Thresholds,
    /// In flight now, in the order of [`Limit`]; written by every worker that serves the cluster.
    used: [AtomicU32; 4],
}

/// A place below a limit; given back on drop.
#[derive(Debug)]
pub struct Permit {
    limits: Option<Arc<Limits>>,
    limit: Limit,
}

impl Limits {
    /// Breakers with these maxima and nothing in flight.
    pub fn new(max: Thresholds) -> Arc<Self> {
        Arc::new(Self { max, used: Default::default() })
    }

    /// The maximum of a limit.
    pub fn maximum(&self, limit: Limit) -> u32 {
        match limit {
            Limit::Connections => self.max.connections,
            Limit::Pending => self.max.pending,
            Limit::Requests => self.max.requests,
            Limit::Retries => self.max.retries,
        }
    }

    /// Takes a place. Unlimited limits cost no atomic operation.
    ///
    /// # Errors
    /// [`Reason::Overflow`] where the limit is reached; it names the limit.
    pub fn take(self: &Arc<Self>, limit: Limit) -> Result<Permit, Outcome> {
        let max = self.maximum(limit);
        if max == u32::MAX {
            return Ok(Permit { limits: None, limit });
        }
        let used = &self.used[limit as usize];
        let taken = used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < max).then_some(n + 1));
        match taken {
            Ok(_) => Ok(Permit { limits: Some(Arc::clone(self)), limit }),
            Err(_) => Err(Outcome::from(Reason::Overflow).over(limit.field(), max.into())),
        }
    }

    /// How many places are taken; 0 for an unlimited limit, which is not counted.
    pub fn in_flight(&self, limit: Limit) -> u32 {
        self.used[limit as usize].load(Ordering::Acquire)
    }

    /// Whether the limit refuses now.
    pub fn is_open(&self, limit: Limit) -> bool {
        self.in_flight(limit) >= self.maximum(limit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(limits) = &self.limits {
            let before = limits.used[self.limit as usize].fetch_sub(1, Ordering::AcqRel);
            debug_assert!(before > 0, "a permit is returned once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: LB-12, DR-21, DR-25, LR-12
    #[test]
    fn limits_are_exact_and_permits_return() {
        let limits = Limits::new(Thresholds { requests: 2, retries: u32::MAX, ..Thresholds::default() });
        let first = limits.take(Limit::Requests).expect("below");
        let second = limits.take(Limit::Requests).expect("below");
        assert_eq!(limits.take(Limit::Requests).expect_err("full").reason, Reason::Overflow);
        assert!(limits.is_open(Limit::Requests));
        drop(first);
        assert!(limits.take(Limit::Requests).is_ok());
        drop(second);
        assert_eq!(limits.in_flight(Limit::Requests), 0);
        let _unlimited = limits.take(Limit::Retries).expect("unlimited");
        assert_eq!(limits.in_flight(Limit::Retries), 0);
    }
}
