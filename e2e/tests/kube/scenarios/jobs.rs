//! What ends by itself, and what needs the network before the application is there (pains.md 3 and 4).

use super::space::Space;
use std::time::Instant;

const URL: &str = "http://ratings:9080/ratings/0";

const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n---\n";

fn template(line: &str, more: &str) -> String {
    let container = |name: &str| {
        format!(
            "{{name: {name}, image: 'ferromesh/tools:0.1.0', imagePullPolicy: IfNotPresent, command: [sh, -c, '{line}']}}"
        )
    };
    let (init, main) = (container("before"), container("main"));
    let init = if more.is_empty() { String::new() } else { format!("initContainers: [{init}], ") };
    format!("{{spec: {{restartPolicy: Never, {init}containers: [{main}]}}}}")
}

fn job(name: &str, line: &str, more: &str) -> String {
    let template = template(line, more);
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{backoffLimit: 0, template: {template}}}\n---\n"
    )
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn jobs_end_by_themselves_with_their_exit_code() {
    let space = Space::with_bookshop("jobs");
    let ask = format!("meshctl curl -loglevel error {URL}");
    let nightly = template(&ask, "");
    let cron = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: nightly}}\nspec: {{schedule: \"* * * * *\", jobTemplate: {{spec: {{backoffLimit: 0, template: {nightly}}}}}}}\n---\n"
    );
    let good = job("good", &ask, "");
    let bad = job("bad", &format!("{ask} && exit 3"), "");
    // Before and beside: each asks once, and nobody asks again for it.
    let early = job("early", &ask, "init");
    let begun = Instant::now();
    space.apply(&[STRICT, &cron, &good, &bad, &early].join(""));
    let wait = |what: &str, condition: &str| {
        let for_it = format!("--for=condition={condition}");
        let done = space.kubectl(&["wait", &for_it, what, "--timeout=90s"]);
        let said = || space.kubectl(&["logs", what, "-c", "main"]);
        assert!(done.is_ok(), "{done:?}\n{:?}", said());
    };
    wait("job/good", "complete");
    let ended = begun.elapsed();
    wait("job/bad", "failed");
    wait("job/early", "complete");
    let code = "jsonpath={.items[0].status.containerStatuses[?(@.name==\"main\")].state.terminated.exitCode}";
    let code = space.kubectl(&["get", "pods", "-l", "job-name=bad", "-o", code]).unwrap();
    assert_eq!(code, "3");
    for container in ["before", "main"] {
        let said = space.kubectl(&["logs", "job/early", "-c", container]).unwrap();
        assert!(said.contains("Reviewer1"), "{container}: {said}");
    }
    let phase = "jsonpath={.items[*].status.phase}";
    assert_eq!(space.kubectl(&["get", "pods", "-l", "job-name=early", "-o", phase]).unwrap(), "Succeeded");
    let last = ["get", "cronjob", "nightly", "-o", "jsonpath={.status.lastSuccessfulTime}"];
    let begun = Instant::now();
    while space.kubectl(&last).unwrap().is_empty() {
        assert!(begun.elapsed().as_secs() < 90, "{}", space.kubectl(&["get", "pods,jobs,events"]).unwrap());
    }
    space.figure(&format!(
        "0 and 3 as exit codes, the first {:.1} s after kubectl; init containers ask too",
        ended.as_secs_f64()
    ));
}
