//! NetworkPolicies of an installation against what its pods really do: the cluster of the tests enforces none, so their ports are
//! compared with the sockets of the programs in the pods.

use e2e::cluster::Cluster;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// State of a socket in `/proc/net/tcp`: established.
const ESTABLISHED: &str = "01";
/// State of a socket in `/proc/net/tcp`: waiting for connections.
const LISTEN: &str = "0A";

/// A socket: the local port, and the port of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    local: u16,
    remote: u16,
}

/// Sockets in the network of a process that are in a state, and do not belong to its loopback alone.
fn sockets(process: &std::path::Path, state: &str) -> BTreeSet<Socket> {
    let mut found = BTreeSet::new();
    for family in ["net/tcp", "net/tcp6"] {
        let text = std::fs::read_to_string(process.join(family)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let port = |word: &str| u16::from_str_radix(word.rsplit(':').next().unwrap(), 16).unwrap();
            // 127.0.0.1 in the byte order of this machine, alone, as ::1, and mapped into IPv6.
            let loopback = words[1].starts_with("0100007F:")
                || words[1].starts_with("00000000000000000000000001000000:")
                || words[1].starts_with("0000000000000000FFFF00000100007F:");
            if words[3] == state && !loopback {
                found.insert(Socket { local: port(words[1]), remote: port(words[2]) });
            }
        }
    }
    found
}

/// A process of each pod of this machine, by the pod's name, which is its host's.
fn processes() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        if let Some(host) = variables.find_map(|one| one.strip_prefix("HOSTNAME=").map(str::to_owned)) {
            found.insert(host, entry.path());
        }
    }
    found
}

fn items(cluster: &Cluster, what: &[&str]) -> Vec<Value> {
    let text = cluster.kubectl(&[&["get"], what, &["-o", "json"]].concat()).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().cloned().unwrap()
}

/// Where pods wait for connections, and where their policy lets connections in, are the same ports; every pod of the namespace has
/// one policy.
pub(crate) fn fit(cluster: &Cluster) {
    let policies = items(cluster, &["networkpolicies", "-n", "istio-system"]);
    let processes = processes();
    let mut compared = 0;
    for pod in items(cluster, &["pods", "-n", "istio-system", "--field-selector=status.phase=Running"]) {
        let (name, labels) = (pod["metadata"]["name"].as_str().unwrap(), &pod["metadata"]["labels"]);
        let chosen = |policy: &&Value| {
            let selector = policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap();
            selector.iter().all(|(key, value)| labels[key] == *value)
        };
        let own: Vec<&Value> = policies.iter().filter(chosen).collect();
        assert_eq!(own.len(), 1, "{name} has one policy: {own:?}");
        let allowed = own[0]["spec"]["ingress"][0]["ports"].as_array().unwrap();
        let allowed: BTreeSet<u16> = allowed.iter().map(|one| one["port"].as_u64().unwrap() as u16).collect();
        let open: BTreeSet<u16> = sockets(&processes[name], LISTEN).iter().map(|socket| socket.local).collect();
        println!("{name}: waits on {open:?}, is let in on {allowed:?}");
        // A gateway waits on the ports of its Service once a Gateway asks for them; and takes what is captured nowhere.
        let gateway = labels["istio"] == "ingressgateway";
        let missing: Vec<&u16> = open.difference(&allowed).collect();
        assert!(missing.is_empty(), "{name} waits on {missing:?}, where nobody is let in");
        assert!(gateway || open == allowed, "{name}: nobody waits on some of {allowed:?}");
        compared += 1;
    }
    assert!(compared >= 5, "{compared} pods");
}

/// Ports that the proxy of a pod is connected to, besides those of the application's peers.
pub(crate) fn connected(pod: &str, own: &[u16]) -> BTreeSet<u16> {
    let all = sockets(&processes()[pod], ESTABLISHED);
    // Connections that came to the pod end at a port of its own, and go on to the application.
    all.iter()
        .filter(|socket| !own.contains(&socket.local))
        .map(|socket| socket.remote)
        .filter(|port| !own.contains(port))
        .collect()
}
