//! No packet of a cluster leaves the machine: neither what pods send outside, nor what is addressed to a Service that is not.

use super::space::Space;
use std::process::Command;

/// Counts what leaves by the interface of the default route and came from outside of this machine. Dropping it removes
/// the rules.
struct Counter {
    rules: Vec<Vec<String>>,
}

impl Counter {
    fn new() -> Self {
        let routes = Command::new("ip").args(["-o", "route", "show", "default"]).output().unwrap();
        let routes = String::from_utf8(routes.stdout).unwrap();
        let device = |line: &str| Some(line.split_whitespace().skip_while(|word| *word != "dev").nth(1)?.to_owned());
        // Chains by which forwarded packets leave; what is refused before does not come here.
        let rule = |device: String| {
            [
                "POSTROUTING",
                "-o",
                &device,
                "-m",
                "addrtype",
                "!",
                "--src-type",
                "LOCAL",
                "-m",
                "comment",
                "--comment",
                "e2e-kube",
            ]
            .map(str::to_owned)
            .to_vec()
        };
        let counter = Self { rules: routes.lines().filter_map(device).map(rule).collect() };
        for rule in &counter.rules {
            assert!(iptables(&["-I"], rule), "cannot count");
        }
        counter
    }

    /// Packets that left so far.
    fn left(&self) -> u64 {
        let saved = Command::new("iptables-save").args(["-c", "-t", "mangle"]).output().unwrap();
        let saved = String::from_utf8(saved.stdout).unwrap();
        let own = saved.lines().filter(|line| line.contains("e2e-kube"));
        let counts: Vec<u64> =
            own.map(|line| line.trim_start_matches('[').split(':').next().unwrap().parse().unwrap()).collect();
        assert_eq!(counts.len(), self.rules.len(), "{saved}");
        counts.iter().sum()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        for rule in &self.rules {
            iptables(&["-D"], rule);
        }
    }
}

fn iptables(what: &[&str], rule: &[String]) -> bool {
    Command::new("iptables").args(["-w", "-t", "mangle"]).args(what).args(rule).status().unwrap().success()
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn no_packet_of_the_cluster_leaves_this_machine() {
    let counter = Counter::new();
    let space = Space::new("isolation");
    // Without a sidecar, and on the node's own network.
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{sidecar.istio.io/inject: 'false'}}}}\nspec: {{terminationGracePeriodSeconds: 1, {more}containers: [{{name: c, image: 'ferromesh/tools:0.1.0', command: [sleep, infinity]}}]}}\n---\n"
        )
    };
    space.apply(&(pod("pod", "") + &pod("node", "hostNetwork: true, ")));
    space.kubectl(&["wait", "--for=condition=Ready", "pod/pod", "pod/node", "--timeout=60s"]).unwrap();
    // A documentation address (RFC 5737), a Service address that nobody has, a name of the world.
    let attempts = "for a in 192.0.2.1:80 10.96.250.250:443; do timeout 2 nc ${a%:*} ${a#*:} </dev/null && echo reached $a; done; timeout 4 nslookup example.com >/dev/null && echo resolved";
    for pod in ["pod", "node"] {
        let line = format!("{{ {attempts}; }} 2>&1 || true");
        let said = space.kubectl(&["exec", pod, "--", "sh", "-c", &line]).unwrap();
        assert!(!said.contains("reached") && !said.contains("resolved"), "{pod}: {said}");
    }
    let left = counter.left();
    assert_eq!(left, 0);
    space.figure("0 packets left the machine in 6 attempts");
}
