//! Names of DNS clusters → endpoints, again and again (LB-16, SE-7, SE-8). An answer that fails keeps the last one (F20).

use crate::cluster::config::Members;
use crate::endpoint::config::{Known, Named, parse};
use crate::endpoint::{Address, Endpoint, HostSet, Priority};
use proto::envoy::cluster::cluster::DnsLookupFamily;
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
    let Members::Dns { assignment, all_answers, family, refresh } = members else { return None };
    let (assignment, wanted) = (assignment.clone(), (*family, *all_answers));
    let (cluster, refresh) = (Arc::clone(cluster), (*refresh).max(MIN_REFRESH));
    Some(tokio::spawn(async move {
        let mut known = Known::default();
        loop {
            if let Ok((mut hosts, named)) = parse(&assignment, &known)
                && look_up(&named, wanted, &known, &mut hosts).await
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
async fn look_up(
    named: &[Named],
    (family, all_answers): (DnsLookupFamily, bool),
    known: &Known,
    hosts: &mut HostSet,
) -> bool {
    for name in named {
        let answers: Vec<SocketAddr> = match tokio::net::lookup_host((&*name.host, name.port)).await {
            Ok(answers) => {
                let answers = of_family(answers.collect(), family);
                answers.into_iter().take(if all_answers { usize::MAX } else { 1 }).collect()
            }
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

/// The answers that the cluster wants; `AUTO` prefers IPv6, as in Envoy.
fn of_family(mut answers: Vec<SocketAddr>, family: DnsLookupFamily) -> Vec<SocketAddr> {
    let wants_v4 = match family {
        DnsLookupFamily::All => return answers,
        DnsLookupFamily::V4Only => true,
        DnsLookupFamily::V6Only => false,
        DnsLookupFamily::V4Preferred => answers.iter().any(SocketAddr::is_ipv4),
        DnsLookupFamily::Auto => !answers.iter().any(SocketAddr::is_ipv6),
    };
    answers.retain(|answer| answer.is_ipv4() == wants_v4);
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::config::parse as parse_cluster;

    fn members(kind: &str, family: &str, host: &str) -> Members {
        let json = serde_json::json!({"name": "c", "type": kind, "dns_lookup_family": family, "dns_refresh_rate": "0.1s",
            "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                {"socket_address": {"address": host, "port_value": 80}}}}]}]}});
        let bytes = proto::json::from_value("envoy.config.cluster.v3.Cluster", &json).unwrap();
        parse_cluster(&prost::Message::decode(bytes.as_slice()).unwrap()).unwrap().members
    }

    fn addresses(hosts: &HostSet) -> Vec<String> {
        hosts.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    // spec: LB-16
    #[test]
    fn families_choose_among_the_answers() {
        use DnsLookupFamily::{All, Auto, V4Only, V4Preferred, V6Only};
        let (four, six) = (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 9], 1)));
        for (family, of_both, of_four, of_six) in [
            (All, vec![four, six], vec![four], vec![six]),
            (V4Only, vec![four], vec![four], vec![]),
            (V6Only, vec![six], vec![], vec![six]),
            (V4Preferred, vec![four], vec![four], vec![six]),
            (Auto, vec![six], vec![four], vec![six]),
        ] {
            assert_eq!(of_family(vec![four, six], family), of_both, "{family:?}");
            assert_eq!(of_family(vec![four], family), of_four, "{family:?}");
            assert_eq!(of_family(vec![six], family), of_six, "{family:?}");
        }
    }

    // spec: LB-16
    #[tokio::test]
    async fn names_are_looked_up_again_and_again() {
        for kind in ["STRICT_DNS", "LOGICAL_DNS"] {
            let (to, mut resolved) = mpsc::channel(1);
            let task = follow(&"c".into(), &members(kind, "V4_ONLY", "localhost"), to).expect("a cluster of names");
            let first = resolved.recv().await.unwrap();
            let second = resolved.recv().await.unwrap();
            assert_eq!(
                (addresses(&first.hosts), addresses(&second.hosts)),
                (vec!["127.0.0.1:80".into()], vec!["127.0.0.1:80".into()])
            );
            let shared = |hosts: &HostSet| Arc::clone(&hosts.iter().next().unwrap().shared);
            assert!(Arc::ptr_eq(&shared(&first.hosts), &shared(&second.hosts)), "what is known of an endpoint is kept");
            task.abort();
        }
        assert!(follow(&"c".into(), &members("STATIC", "AUTO", "127.0.0.1"), mpsc::channel(1).0).is_none());
    }

    // spec: LB-16
    #[tokio::test]
    async fn answers_are_all_used_or_the_first_and_none_leaves_the_last_ones() {
        let look = async |host: &str, all_answers| {
            let named = [Named { host: host.into(), port: 7, priority: 1 }];
            let mut hosts = HostSet::default();
            let found = look_up(&named, (DnsLookupFamily::All, all_answers), &Known::default(), &mut hosts).await;
            found.then(|| (hosts.priorities.len(), addresses(&hosts)))
        };
        let system: Vec<SocketAddr> = tokio::net::lookup_host(("localhost", 7)).await.unwrap().collect();
        let mut strict = look("localhost", true).await.unwrap();
        assert_eq!(strict.0, 2, "the priority of the name is that of its endpoints");
        for answer in &system {
            assert!(strict.1.contains(&answer.to_string()), "{answer} of {system:?}");
        }
        strict.1.truncate(1);
        assert_eq!(look("localhost", false).await.unwrap(), strict);
        assert_eq!(look("no name", true).await, None);
    }
}
