//! Limits that all replicas of a service count together, by mixer.

use super::space::Space;
use e2e::cluster::PATIENCE;
use std::time::Instant;

/// Requests of one user in an hour.
const LIMIT: usize = 20;
/// Requests that one user sends.
const SENT: usize = 100;

/// How many answers to so many requests of a user have each status.
fn statuses<const N: usize>(space: &Space, user: &str, sent: usize, statuses: [u16; N]) -> [usize; N] {
    let ask = format!("meshctl curl -loglevel critical -curl-stdout-headers -H 'x-user: {user}' http://server:8080/");
    let all = space.shell(&format!("for i in $(seq {sent}); do {ask}; done"));
    statuses.map(|status| all.matches(&format!("HTTP/1.1 {status}")).count())
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn replicas_count_a_shared_limit_together() {
    let space = Space::with_client("limits");
    space.start_server(2);
    assert_eq!(statuses(&space, "early", 5, [200, 429]), [5, 0]);
    let begun = Instant::now();
    space.apply(&format!(
        "
apiVersion: policy.ferromesh.io/v1alpha1
kind: RateLimit
metadata: {{name: api}}
spec:
  selector: {{matchLabels: {{app: server}}}}
  rules:
  - name: per-user
    per: [{{header: x-user}}]
    limit: {{requests: {LIMIT}, unit: HOUR}}
    scope: SHARED
"
    ));
    // In force at both replicas once many in a row are refused.
    while statuses(&space, "probe", 12, [429]) != [12] {
        assert!(
            begun.elapsed() < PATIENCE,
            "no limit: {:?}",
            space.kubectl(&["get", "ratelimit", "api", "-o", "yaml"])
        );
    }
    let live = begun.elapsed();
    let [passed, refused] = statuses(&space, "ann", SENT, [200, 429]);
    assert_eq!(passed + refused, SENT, "nothing else becomes of a request");
    // What a replica was granted ahead and did not use in time is lost to the others.
    assert!((LIMIT * 3 / 4..=LIMIT).contains(&passed), "{passed} of {SENT} passed, the limit is {LIMIT}");
    assert_eq!(statuses(&space, "bob", 1, [200]), [1], "somebody else has requests of his own");
    let pods = space.kubectl(&["get", "pods", "-l", "app=server", "-o", "jsonpath={.items[*].metadata.name}"]).unwrap();
    let refusals = |pod: &str| {
        let log = space.kubectl(&["logs", pod, "-c", "istio-proxy", "--tail=2000"]).unwrap();
        log.lines().filter(|line| line.contains("\" 429 ")).count()
    };
    let by_pod: Vec<usize> = pods.split(' ').map(refusals).collect();
    assert!(by_pod.len() == 2 && by_pod.iter().all(|refused| *refused > 0), "{by_pod:?}");
    space.figure(&format!(
        "of {SENT} requests {passed} passed with a limit of {LIMIT} over two replicas, which refused {by_pod:?} in all; in force {} ms \
         after kubectl",
        live.as_millis()
    ));
}
