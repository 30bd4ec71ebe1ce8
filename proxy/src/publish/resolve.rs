//! Names of DNS clusters → endpoints, again and again (LB-16, SE-7, SE-8). An answer that fails keeps the last one (F20).

use crate::cluster::config::Members;
use crate::endpoint::config::{Known, Named, parse};
use crate::endpoint::{Address, Endpoint, HostSet, Priority};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Endpoints of a cluster, found by name.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) cluster: Arc<str>,
    pub(super) hosts: HostSet,
}

/// Shortest time between two look-ups.
const MIN_REFRESH: Duration = Duration::from_millis(100);

/// Looks the names of a DNS cluster up until it is dropped; `None` for other clusters.
pub(super) fn follow(cluster: &Arc<str>, members: &Members, to: mpsc::Sender<Resolved>) -> Option<JoinHandle<()>> {
    let Members::Dns { assignment, all_answers, refresh } = members else { return None };
    let (assignment, all_answers) = (assignment.clone(), *all_answers);
    let (cluster, refresh) = (Arc::clone(cluster), (*refresh).max(MIN_REFRESH));
    Some(tokio::spawn(async move {
        let mut known = Known::default();
        loop {
            if let Ok((mut hosts, named)) = parse(&assignment, &known)
                && look_up(&named, all_answers, &known, &mut hosts).await
            {
                known = hosts.iter().map(|e| (e.address.clone(), Arc::clone(&e.shared))).collect();
                if to.send(Resolved { cluster: Arc::clone(&cluster), hosts }).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(refresh).await;
        }
    }))
}

/// Adds what the names resolve to; false where one could not be resolved.
async fn look_up(named: &[Named], all_answers: bool, known: &Known, hosts: &mut HostSet) -> bool {
    for name in named {
        let answers: Vec<SocketAddr> = match tokio::net::lookup_host((&*name.host, name.port)).await {
            Ok(answers) => answers.take(if all_answers { usize::MAX } else { 1 }).collect(),
            Err(error) => {
                tracing::warn!(host = &*name.host, %error, "name is not resolved, the last endpoints stay");
                return false;
            }
        };
        while hosts.priorities.len() <= name.priority {
            hosts.priorities.push(Priority::default());
        }
        let Some(priority) = hosts.priorities.get_mut(name.priority) else { continue };
        for answer in answers {
            let mut endpoint = Endpoint::at(Address::Ip(answer));
            endpoint.hostname = Some(name.host.clone());
            if let Some(shared) = known.get(&endpoint.address) {
                endpoint.shared = Arc::clone(shared);
            }
            if !priority.all.iter().any(|other| other.address == endpoint.address) {
                priority.all.push(Arc::new(endpoint));
            }
        }
    }
    true
}
