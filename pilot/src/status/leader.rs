//! Who writes: one pilot of several, by a Lease (PI-44, F27).
//!
//! As client-go does it, a lease of another is dead once it has not changed for its time, by our own clock: clocks of two
//! machines are never compared.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Name of the Lease of those who write status.
pub const LEASE: &str = "istio-status-leader";
/// How long a lease holds: another pilot takes over at the latest [`LASTS`] + [`RENEW`] after its holder has died (F27: 15 s).
const LASTS: Duration = Duration::from_secs(10);
/// How often it is looked at, and renewed by its holder.
const RENEW: Duration = Duration::from_secs(3);
/// The holder ceases to write this long before its lease ends.
const MARGIN: Duration = Duration::from_secs(2);

/// Until when this process leads.
#[derive(Clone, Default)]
pub struct Leadership {
    /// Written by the task that renews, read before each write.
    until: watch::Sender<Option<Instant>>,
}

impl Leadership {
    /// Whether this process may write now.
    pub fn holds(&self) -> bool {
        let until = *self.until.borrow();
        until.is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        self.until.send_replace(until);
    }
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is ours, or nobody's: write it.
    Take,
    /// Another holds it.
    Wait,
}

/// The lease as it was seen last.
#[derive(Default)]
struct Observed {
    version: Option<String>,
    at: Option<Instant>,
}

impl Observed {
    /// What to do about the lease that is found now.
    fn handle(&mut self, lease: Option<&Lease>, me: &str, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Take };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        if holder.is_empty() || holder == me {
            return Step::Take;
        }
        if self.at.is_none() || self.version != lease.metadata.resource_version {
            *self = Self { version: lease.metadata.resource_version.clone(), at: Some(now) };
        }
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = seconds.map_or(LASTS, Duration::from_secs);
        let dead = self.at.is_some_and(|at| now.duration_since(at) > lasts);
        if dead { Step::Take } else { Step::Wait }
    }
}

/// Seeks the lease for ever, and keeps it once it is held.
///
/// # Errors
/// Never: an API server that is away ends a leadership, and it is sought again.
pub async fn run(leases: Api<Lease>, lease: &'static str, me: String, leadership: Leadership) -> anyhow::Result<()> {
    let mut observed = Observed::default();
    let mut tick = tokio::time::interval(RENEW);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // What was asked before is what counts: the lease begins no later than this.
        let asked = Instant::now();
        let led = leadership.holds();
        match tokio::time::timeout(RENEW, seek(&leases, lease, &me, &mut observed)).await {
            Ok(Ok(true)) => leadership.set(Some(asked + LASTS - MARGIN)),
            Ok(Ok(false)) => leadership.set(None),
            // It may still be ours: until its end.
            Ok(Err(error)) => tracing::debug!("lease {lease}: {error}"),
            Err(_elapsed) => tracing::debug!("lease {lease}: no answer"),
        }
        if led != leadership.holds() {
            tracing::info!(me, leads = !led, "lease {lease}");
        }
    }
}

/// One look at the lease; whether it is ours now.
async fn seek(leases: &Api<Lease>, name: &str, me: &str, observed: &mut Observed) -> kube::Result<bool> {
    let found = leases.get_opt(name).await?;
    if observed.handle(found.as_ref(), me, Instant::now()) == Step::Wait {
        return Ok(false);
    }
    let spec = found.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let ours = spec.holder_identity.as_deref() == Some(me);
    let now = MicroTime(Timestamp::now());
    let wanted = LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
        acquire_time: if ours { spec.acquire_time } else { Some(now.clone()) },
        lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!ours)),
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    let options = PostParams::default();
    // The version that was seen goes along: who comes second is refused.
    let written = match found {
        Some(lease) => leases.replace(name, &options, &Lease { spec: Some(wanted), ..lease }).await,
        None => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            leases.create(&options, &Lease { metadata, spec: Some(wanted) }).await
        }
    };
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(10),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }

    // spec: PI-44
    #[test]
    fn a_lease_is_taken_that_is_nobodys_or_has_not_changed_for_its_time() {
        let (mut observed, start) = (Observed::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(observed.handle(None, "me", start), Step::Take);
        assert_eq!(observed.handle(Some(&lease("me", "1")), "me", start), Step::Take);
        assert_eq!(observed.handle(Some(&lease("", "1")), "me", start), Step::Take, "given back");
        assert_eq!(observed.handle(Some(&lease("other", "2")), "me", start), Step::Wait);
        assert_eq!(observed.handle(Some(&lease("other", "3")), "me", after(9)), Step::Wait, "renewed");
        assert_eq!(observed.handle(Some(&lease("other", "3")), "me", after(18)), Step::Wait);
        assert_eq!(observed.handle(Some(&lease("other", "3")), "me", after(20)), Step::Take, "its holder is dead");
    }

    #[test]
    fn a_leadership_ends_by_itself() {
        let leadership = Leadership::default();
        assert!(!leadership.holds());
        leadership.set(Some(Instant::now() + Duration::from_secs(9)));
        assert!(leadership.holds());
        leadership.set(Some(Instant::now() - Duration::from_millis(1)));
        assert!(!leadership.holds(), "nobody had to say so");
    }
}
