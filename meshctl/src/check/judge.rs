//! From facts to lines. Pure.

use super::cluster::Kubernetes;
use super::facts::{Facts, Told};
use super::installed;
use super::report::{Group, Line, Report, Result};
use identity::svid::LeafFacts;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// Share of its life below which a certificate should have been renewed: proxies renew at half of it.
const LATE: f64 = 0.2;

/// What is looked at of one proxy.
pub fn one(facts: &Facts) -> Report {
    let mut groups = vec![pilot(facts), proxies(facts), identity(facts)];
    groups.retain(|group| !group.lines.is_empty());
    Report { groups }
}

/// Everything that is looked at.
pub fn judge(facts: &Facts) -> Report {
    let mut groups = vec![environment(facts)];
    if let Some(kubernetes) = &facts.kubernetes {
        groups.extend(installed::after(kubernetes, facts.now));
        if kubernetes.version.is_err() {
            return Report { groups };
        }
    }
    groups.extend([pilot(facts), citadel(facts)]);
    // Who has installed none misses none.
    let wants_mixer = |kubernetes: &Kubernetes| {
        kubernetes.deployments.as_ref().is_ok_and(|deployments| deployments.contains_key("mixer"))
    };
    if facts.kubernetes.as_ref().is_none_or(wants_mixer) {
        groups.push(mixer(facts));
    }
    if facts.ready.is_ok() {
        groups.extend([proxies(facts), identity(facts), configuration(facts)]);
    } else if facts.kubernetes.is_some() {
        groups.push(identity(facts));
    }
    groups.retain(|group| !group.lines.is_empty());
    Report { groups }
}

fn environment(facts: &Facts) -> Group {
    let mut lines = Vec::new();
    if let Some(why) = &facts.nowhere {
        lines.push(Line::bad(
            "there is a mesh to look at",
            why.clone(),
            "or give --pilot, --citadel and --mixer HOST:PORT",
        ));
    }
    if let Some(demo) = &facts.demo {
        let description = format!("the demo {demo:?} has its directory");
        lines.push(match facts.directory {
            true => Line::good(description),
            false => Line::bad(
                description,
                format!("there is no demo called {demo:?}"),
                "start one with meshctl demo, name another with --demo, or give --pilot, --citadel and --mixer HOST:PORT",
            ),
        });
    }
    let description = "the program proxy is beside meshctl";
    lines.push(match &facts.proxy_program {
        Some(_) => Line::good(description),
        None => Line::warning(
            description,
            "meshctl explain needs it",
            "build it with cargo build -p proxy, or name it with meshctl explain --proxy PATH",
        ),
    });
    Group { name: "environment", lines }
}

fn pilot(facts: &Facts) -> Group {
    let mut lines = Vec::new();
    match &facts.ready {
        Err(error) => lines.push(Line::bad(
            "pilot answers and is ready",
            error.clone(),
            "look at its log (demo: /run/ferromesh/NAME/log/pilot.log); 503 means that it still takes objects in",
        )),
        Ok(()) => {
            lines.push(Line::good("pilot answers and is ready"));
            let own = env!("CARGO_PKG_VERSION");
            let wrong: Vec<String> = (facts.version != own)
                .then(|| format!("pilot is {:?}, meshctl is {own:?}", facts.version))
                .into_iter()
                .collect();
            lines.push(Line::of("pilot has meshctl's version", &wrong, "upgrade the older one", Result::Warning));
        }
    }
    Group { name: "pilot", lines }
}

fn citadel(facts: &Facts) -> Group {
    let line = match &facts.citadel {
        Ok(()) => Line::good("citadel takes connections"),
        Err(error) => Line::bad(
            "citadel takes connections",
            error.clone(),
            "look at its log; running proxies keep their certificates until these expire, new ones get none",
        ),
    };
    Group { name: "citadel", lines: vec![line] }
}

fn mixer(facts: &Facts) -> Group {
    let metrics = match &facts.mixer {
        Ok(metrics) => metrics,
        Err(error) => {
            let hint = "look at its log; requests go on without it, unless a policy that closes asks it";
            return Group { name: "mixer", lines: vec![Line::bad("mixer answers", error.clone(), hint)] };
        }
    };
    let mut lines = vec![Line::good("mixer answers")];
    let (senders, connected) = (metric(metrics, "mixer_senders"), facts.proxies.len());
    let silent: Vec<String> = (senders == 0.0 && connected > 0)
        .then(|| format!("{connected} proxies are connected to pilot, none has reported"))
        .into_iter()
        .collect();
    let hint = "a proxy reports each second once it has had traffic; its bootstrap names mixer in the cluster `mixer`";
    lines.push(Line::of("proxies report to mixer", &silent, hint, Result::Warning));
    let errors: Vec<String> = ["rule", "handler", "instance", "attribute"]
        .into_iter()
        .filter_map(|what| {
            let name = match what {
                "attribute" => "mixer_config_attribute_error_count".to_owned(),
                what => format!("mixer_config_{what}_config_error_count"),
            };
            let count = metric(metrics, &name);
            (count > 0.0).then(|| format!("{count} {what}s are refused"))
        })
        .collect();
    let hint = "mixer's page /policies and its log name each with the reason";
    lines.push(Line::of("mixer takes all rules, handlers and instances", &errors, hint, Result::Error));
    Group { name: "mixer", lines }
}

/// The sum of a metric without labels; 0 where it is absent.
fn metric(text: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok();
    text.lines().filter_map(value).sum()
}

fn proxies(facts: &Facts) -> Group {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let connected: BTreeSet<String> = facts.proxies.iter().map(|proxy| text(&proxy["proxy"])).collect();
    let missing: Vec<String> = facts
        .workloads
        .iter()
        .filter(|pod| pod["labels"][proto::wire::LABEL_TLS_MODE] == "istio")
        .map(|pod| (format!("{}.{}", text(&pod["name"]), text(&pod["namespace"])), &pod["labels"]))
        .filter(|(id, labels)| !connected.contains(id) && may_have_proxy(facts, id, labels))
        .map(|(id, _)| format!("{id} should have a proxy, and none is connected"))
        .collect();
    let hint = "look at the log of the proxy (demo: /run/ferromesh/NAME/log/WORKLOAD.proxy.log)";
    let mut lines = vec![Line::of("every pod of the mesh has a connected proxy", &missing, hint, Result::Error)];
    let none: Vec<String> =
        connected.is_empty().then(|| "no proxy is connected to pilot".to_owned()).into_iter().collect();
    lines.push(Line::of("proxies are connected", &none, "start a workload with a sidecar", Result::Warning));
    let stale: Vec<String> = facts.proxies.iter().flat_map(stale).collect();
    let hint = "it should pass within a second: look again with --wait 10s, or at meshctl proxy-status -v";
    lines.push(Line::of("every proxy has what pilot sent last", &stale, hint, Result::Warning));
    let refused: Vec<String> = facts
        .nacks
        .iter()
        .map(|nack| format!("{} refuses {}: {}", text(&nack["proxy"]), text(&nack["type"]), text(&nack["message"])))
        .collect();
    let hint = "change the objects that pilot's /debug/nacks names; the proxy keeps what it had before";
    lines.push(Line::of("no proxy refuses what it was sent", &refused, hint, Result::Error));
    let versions: BTreeSet<String> = facts.proxies.iter().map(|proxy| text(&proxy["istio_version"])).collect();
    let mixed: Vec<String> = (versions.len() > 1)
        .then(|| format!("versions that run: {}", versions.into_iter().collect::<Vec<_>>().join(", ")))
        .into_iter()
        .collect();
    let hint = "restart workloads with older proxies";
    lines.push(Line::of("all proxies have one version", &mixed, hint, Result::Warning));
    Group { name: "proxies", lines }
}

/// Whether a proxy can stand beside a pod. mixer speaks the mesh's mutual TLS itself and has the same label as injected
/// pods; where the API server is asked, it knows which were injected.
fn may_have_proxy(facts: &Facts, id: &str, labels: &Value) -> bool {
    match facts.kubernetes.as_ref().and_then(|kubernetes| kubernetes.pods.as_ref().ok()) {
        Some(pods) => pods.iter().any(|pod| pod.id == id && pod.injected),
        None => labels["app"] != "mixer",
    }
}

/// What a proxy has not acknowledged.
fn stale(proxy: &Value) -> Vec<String> {
    let types = proxy["resources"].as_object().into_iter().flatten();
    let late = types.filter(|(_, progress)| {
        progress["lastError"].is_null()
            && progress["sent"].as_str().is_some_and(|sent| !sent.is_empty())
            && progress["sent"] != progress["acked"]
    });
    let name = proxy["proxy"].as_str().unwrap_or_default();
    late.map(|(kind, _)| format!("{name} has not acknowledged its {kind}")).collect()
}

/// Roots end for the whole mesh at once: how long before it is said.
const ROOTS_WARNING: Duration = Duration::from_secs(60 * 86_400);

/// Whether the roots are good, and vouch for what proxies show (linkerd's groups identity and identity-data-plane).
fn roots(facts: &Facts) -> Vec<Line> {
    let (mut wrong, mut late) = (Vec::new(), Vec::new());
    match &facts.roots {
        None => return Vec::new(),
        Some(Err(error)) => wrong.push(error.clone()),
        Some(Ok(roots)) => {
            // One that has ended beside another that holds is what a rotation leaves.
            let holds =
                |root: &&LeafFacts| root.lifetime.not_before <= facts.now && root.lifetime.not_after > facts.now;
            match roots.iter().filter(holds).max_by_key(|root| root.lifetime.not_after) {
                None if roots.is_empty() => wrong.push("there is none".to_owned()),
                None => wrong.extend(roots.iter().map(|root| format!("root {} is not valid now", root.subject))),
                Some(root) => {
                    let left = root.lifetime.not_after.duration_since(facts.now).unwrap_or_default();
                    let days = left.as_secs() / 86_400;
                    late.extend(
                        (left < ROOTS_WARNING).then(|| format!("root {} is valid for {days} days", root.subject)),
                    );
                }
            }
        }
    }
    let strangers: Vec<String> = facts.strangers.iter().map(|(proxy, why)| format!("{proxy}: {why}")).collect();
    vec![
        Line::of(
            "the roots of the mesh are valid",
            &wrong,
            "citadel makes and renews a root of its own, look at its log; one that was plugged in (cacerts) you must replace",
            Result::Error,
        ),
        Line::of(
            "the roots are valid for 60 days at least",
            &late,
            "a root of citadel's own is renewed by itself; one that was plugged in (cacerts) you must replace before it ends",
            Result::Warning,
        ),
        Line::of(
            "the roots vouch for every proxy's certificate",
            &strangers,
            "the proxy enrolled with another CA, or before the root was replaced: restart it, and look at its CA_ADDR",
            Result::Error,
        ),
    ]
}

fn identity(facts: &Facts) -> Group {
    let mut lines = roots(facts);
    let (mut unread, mut wrong, mut late, mut foreign) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (proxy, told) in &facts.certificates {
        let leaf = match told {
            Told::Err(error) => {
                unread.push(format!("{proxy}: {error}"));
                continue;
            }
            Told::Ok(leaves) => leaves.first(),
        };
        let Some(leaf) = leaf else {
            wrong.push(format!("{proxy} has no certificate"));
            continue;
        };
        match life_left(leaf, facts.now) {
            None => wrong.push(format!("{proxy}: its certificate is not valid now")),
            Some(left) if left < LATE => {
                late.push(format!("{proxy}: {:.0} % of its certificate's life are left", left * 100.0));
            }
            Some(_) => {}
        }
        let wanted = expected(facts, proxy);
        let own = leaf.id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
        if let Some(wanted) = wanted.filter(|wanted| !own.ends_with(wanted.as_str())) {
            foreign.push(format!("{proxy} is {own:?}, its pod runs as {wanted}"));
        }
    }
    if facts.certificates.is_empty() {
        return Group { name: "identity", lines };
    }
    lines.extend([
        Line::of(
            "proxies show their certificates",
            &unread,
            "in a demo: are you root? in a cluster: create on pods/portforward is needed",
            Result::Warning,
        ),
        Line::of(
            "every proxy has a certificate that is valid now",
            &wrong,
            "look at the proxy's log for what citadel said; citadel must answer, and clocks must agree",
            Result::Error,
        ),
        Line::of(
            "certificates are renewed in time",
            &late,
            "citadel must answer: proxies renew at half of the life and ask again until they succeed",
            Result::Warning,
        ),
        Line::of(
            "every proxy is who its pod says",
            &foreign,
            "the token that the proxy enrols with is another workload's: give it its own",
            Result::Error,
        ),
    ]);
    Group { name: "identity", lines }
}

/// Share of its life that a certificate has left; none where it is not valid.
fn life_left(leaf: &LeafFacts, now: SystemTime) -> Option<f64> {
    let (from, to) = (leaf.lifetime.not_before, leaf.lifetime.not_after);
    let left = to.duration_since(now).ok()?;
    now.duration_since(from).ok()?;
    Some(left.as_secs_f64() / to.duration_since(from).ok()?.as_secs_f64().max(1.0))
}

/// The end of the identity that a pod's proxy must have.
fn expected(facts: &Facts, proxy: &str) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let same = |pod: &&Value| format!("{}.{}", text(&pod["name"]), text(&pod["namespace"])) == proxy;
    let pod = facts.workloads.iter().find(same)?;
    Some(format!("/ns/{}/sa/{}", text(&pod["namespace"]), text(&pod["serviceAccount"])))
}

fn configuration(facts: &Facts) -> Group {
    let problems = facts.status["problems"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shown = |problem: &Value| {
        format!(
            "{}:{}: {} {}",
            text(&problem["file"]),
            problem["line"],
            text(&problem["field"]),
            text(&problem["message"])
        )
    };
    let (dangling, refused): (Vec<&Value>, Vec<&Value>) =
        problems.iter().partition(|problem| problem["class"] == "danglingReference");
    let refused: Vec<String> = refused.into_iter().map(shown).collect();
    let dangling: Vec<String> = dangling.into_iter().map(shown).collect();
    let lines = vec![
        Line::of(
            "pilot takes every object",
            &refused,
            "mend the field; until then the last good version of the object stays in force",
            Result::Error,
        ),
        Line::of(
            "every reference leads somewhere",
            &dangling,
            "define what it names: requests that it matches get 503",
            Result::Warning,
        ),
    ];
    Group { name: "configuration", lines }
}

#[cfg(test)]
mod tests;
