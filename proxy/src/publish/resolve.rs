//! Names of DNS clusters → endpoints, again and again (LB-16, SE-7, SE-8). An answer that fails keeps the last one (F20).

use crate::cluster::config::Members;
use crate::dns::{Forwarder, ResolvConf, life};
use crate::endpoint::config::{Known, Named, parse};
use crate::endpoint::{Address, HostSet, Priority};
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

/// Looks the names of a DNS cluster up until it is dropped; `None` for other clusters.
pub(super) fn follow(cluster: &Arc<str>, members: &Members, to: mpsc::Sender<Resolved>) -> Option<JoinHandle<()>> {
    let Members::Dns { assignment, all_answers, family, pace } = members else { return None };
    let (assignment, wanted, pace) = (assignment.clone(), Wanted { family: *family, all: *all_answers }, *pace);
    let cluster = Arc::clone(cluster);
    Some(tokio::spawn(async move {
        let (mut known, mut failures) = (Known::default(), 0);
        loop {
            let found = match parse(&assignment, &known) {
                Ok((mut hosts, named)) => {
                    let servers = pace.by_ttl.then(servers);
                    look_up(&named, &wanted, (&known, &mut hosts), servers.as_ref()).await.map(|life| (hosts, life))
                }
                Err(_) => None,
            };
            let wait = match found {
                Some((hosts, life)) => {
                    failures = 0;
                    known = hosts.iter().map(|e| (e.address.clone(), Arc::clone(&e.shared))).collect();
                    if to.send(Resolved { cluster: Arc::clone(&cluster), hosts }).await.is_err() {
                        return;
                    }
                    pace.after_answer(life, fastrand::f64())
                }
                None => {
                    failures += 1;
                    pace.after_failure(failures, fastrand::f64())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }))
}

/// Which answers a cluster wants.
struct Wanted {
    family: DnsLookupFamily,
    /// All, or the first.
    all: bool,
}

/// The system's name servers, to ask for the life of records.
fn servers() -> Forwarder {
    let conf = ResolvConf::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    Forwarder::new(conf.servers, SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// Adds what the names resolve to, and gives back the shortest life that `servers` know of; `None` where a name could not
/// be resolved.
async fn look_up(
    named: &[Named],
    wanted: &Wanted,
    (known, hosts): (&Known, &mut HostSet),
    servers: Option<&Forwarder>,
) -> Option<Option<Duration>> {
    let mut least: Option<Duration> = None;
    for name in named {
        let answers: Vec<SocketAddr> = match tokio::net::lookup_host((&*name.host, name.port)).await {
            Ok(answers) => used(answers.collect(), wanted.family, wanted.all),
            Err(error) => {
                tracing::warn!(host = &*name.host, %error, "name is not resolved, the last endpoints stay");
                return None;
            }
        };
        if let Some(servers) = servers {
            least = life(servers, &name.host, &answers).await.into_iter().chain(least).min();
        }
        while hosts.priorities.len() <= name.priority {
            hosts.priorities.push(Priority::default());
        }
        let Some(priority) = hosts.priorities.get_mut(name.priority) else { continue };
        for answer in answers {
            let mut endpoint = name.like.resolved(Address::Ip(answer), known);
            endpoint.hostname.get_or_insert_with(|| name.host.clone());
            if !priority.all.iter().any(|other| other.address == endpoint.address) {
                priority.all.push(Arc::new(endpoint));
            }
        }
    }
    Some(least)
}

/// The answers that become endpoints: of the wanted family, all of them or the first.
fn used(answers: Vec<SocketAddr>, family: DnsLookupFamily, all: bool) -> Vec<SocketAddr> {
    let mut answers = of_family(answers, family);
    if !all {
        answers.truncate(1);
    }
    answers
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
    use crate::endpoint::Endpoint;

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
        let other = SocketAddr::from(([10, 0, 0, 2], 1));
        assert_eq!(used(vec![six, four, other], V4Only, true), [four, other], "STRICT_DNS");
        assert_eq!(used(vec![six, four, other], V4Only, false), [four], "LOGICAL_DNS");
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
            let mut like = Endpoint::at(Address::Ip(SocketAddr::from(([0, 0, 0, 0], 0))));
            (like.weight, like.workload) = (7, Some("w".into()));
            let named = [Named { host: host.into(), port: 7, priority: 1, like }];
            let mut hosts = HostSet::default();
            let wanted = Wanted { family: DnsLookupFamily::All, all: all_answers };
            look_up(&named, &wanted, (&Known::default(), &mut hosts), None).await?;
            let kept = |e: &Arc<Endpoint>| {
                e.weight == 7 && e.workload.as_deref() == Some("w") && e.hostname.as_deref() == Some(host)
            };
            assert!(hosts.iter().all(kept), "what the name is like, its addresses are like");
            Some((hosts.priorities.len(), addresses(&hosts)))
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
