use super::grace;
use super::intake::Intake;
use crate::model::{Mesh, MeshConfig};
use crate::source::{Class, Event, Key, memory};
use std::sync::Arc;
use std::time::Instant;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n";

fn rule(host: &str, weight: i32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v}}\nspec:\n  hosts: [a]\n  http:\n  - route:\n    - destination: {{host: {host}}}\n      weight: {weight}\n"
    )
}

fn events(yaml: &str) -> Vec<Event> {
    memory::parse(yaml, Some(&"f.yaml".into())).objects.into_iter().map(Event::Upsert).collect()
}

fn in_force(intake: &Intake) -> String {
    let rule = &intake.mesh.virtual_services[0];
    rule.http[0].route[0].destination.as_ref().unwrap().host.clone()
}

// spec: VS-16
#[test]
fn a_new_rule_that_leads_nowhere_is_in_force_and_reported() {
    let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
    intake.apply(events(&rule("nowhere", 1)));
    assert_eq!(in_force(&intake), "nowhere.default.svc.cluster.local");
    let problem = intake.problems().next().unwrap();
    assert_eq!((problem.class, problem.line), (Class::DanglingReference, Some(8)));
}

#[test]
fn a_good_version_stays_until_what_the_new_one_refers_to_exists() {
    let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
    intake.apply(events(&format!("{SERVICE}---\n{}", rule("a", 1))));
    assert_eq!(in_force(&intake), "a.default.svc.cluster.local");
    intake.apply(events(&rule("b", 1)));
    assert_eq!(in_force(&intake), "a.default.svc.cluster.local", "the version before stays");
    assert_eq!(intake.problems().count(), 1);
    let change = intake.apply(events(&SERVICE.replace("name: a", "name: b")));
    assert!(change.full && change.virtual_services);
    assert_eq!(in_force(&intake), "b.default.svc.cluster.local", "the reference exists now");
    assert_eq!(intake.problems().count(), 0);
}

// spec: SE-10, PI-20
#[test]
fn a_pod_that_becomes_ready_touches_the_services_that_select_it_and_nothing_else() {
    let pod = |ready: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{app: a}}}}\nstatus: {{podIP: 10.0.0.1, conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
        )
    };
    let entry = |app: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {app}}}\nspec: {{hosts: [{app}.com], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC, workloadSelector: {{labels: {{app: {app}}}}}}}\n"
        )
    };
    let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
    intake.apply(events(&format!("{SERVICE}---\n{}{}{}", pod("False"), entry("a"), entry("b"))));
    let before = Arc::clone(&intake.mesh.workloads);
    assert_eq!(before.len(), 1);
    let change = intake.apply(events(&pod("True")));
    assert!(Arc::ptr_eq(&before, &intake.mesh.workloads), "who the workloads are is the same");
    let touched: Vec<&str> = change.endpoints.iter().map(|key| &*key.host).collect();
    assert_eq!((touched, change.full), (vec!["a.com"], false));
    assert!(intake.apply(events(&pod("True").replace("app: a", "app: b"))).full, "its labels are part of it");
    intake.apply(deleted(&pod("True")));
    assert!(intake.mesh.workloads.is_empty());
}

// spec: VSM-1, GEN-11
#[test]
fn a_host_that_an_older_rule_routes_is_reported_and_connections_may_have_many_rules() {
    let second = rule("a", 1).replace("name: v}", "name: w}");
    let tcp = |rule: String| rule.replace("  http:", "  tcp:");
    for (second, told) in [(tcp(second.clone()), 0), (second, 1)] {
        let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
        intake.apply(events(&format!("{SERVICE}---\n{}---\n{second}", rule("a", 1))));
        let problems = intake.problems().filter(|problem| problem.class == Class::Conflict).count();
        assert_eq!((problems, super::hub::duplicate_hosts(&intake.mesh)), (told, told), "{second}");
    }
}

const SUBSET: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a, subsets: [{name: v1, labels: {version: v1}}]}\n";

fn to_subset() -> String {
    rule("a", 1).replace("{host: a}", "{host: a, subset: v1}")
}

fn deleted(yaml: &str) -> Vec<Event> {
    events(yaml).into_iter().filter_map(key).map(Event::Delete).collect()
}

// spec: D10
#[test]
fn a_new_rule_waits_a_while_for_its_subset() {
    let start = Instant::now();
    let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
    intake.apply(events(SERVICE));
    intake.apply_at(events(&to_subset()), start);
    assert!(intake.mesh.virtual_services.is_empty(), "not in force without its subset");
    assert_eq!((intake.problems().count(), intake.due()), (1, Some(start + grace::GRACE)));
    intake.apply_at(events(SUBSET), start + grace::GRACE / 2);
    assert_eq!((in_force(&intake).as_str(), intake.due()), ("a.default.svc.cluster.local", None));
    assert_eq!(intake.problems().count(), 0);

    let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
    intake.apply_at(events(&(SERVICE.to_owned() + "---\n" + &to_subset())), start);
    intake.apply_at(Vec::new(), start + grace::GRACE);
    assert_eq!(intake.mesh.virtual_services.len(), 1, "in the end what is written holds");
    assert_eq!((intake.problems().count(), intake.due()), (1, None));
}

// spec: D10
#[test]
fn a_subset_stays_a_while_for_the_rule_that_names_it() {
    let start = Instant::now();
    let all = [SERVICE, SUBSET, &to_subset()].join("---\n");
    let subsets = |intake: &Intake| intake.mesh.rules.iter().map(|rule| rule.subsets.len()).sum::<usize>();
    let fewer = SUBSET.replace("subsets: [{name: v1, labels: {version: v1}}]", "subsets: []");
    for leave in [deleted(SUBSET), events(&fewer)] {
        let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
        intake.apply_at(events(&all), start);
        intake.apply_at(leave, start);
        assert_eq!((subsets(&intake), intake.due()), (1, Some(start + grace::GRACE)));
        let change = intake.apply_at(deleted(&to_subset()), start + grace::GRACE / 2);
        assert!(change.full && subsets(&intake) == 0, "nobody names it any longer");
        assert_eq!(intake.due(), None);

        intake.apply_at(events(&all), start);
        intake.apply_at(deleted(SUBSET), start);
        intake.apply_at(Vec::new(), start + grace::GRACE);
        assert_eq!((subsets(&intake), intake.due()), (0, None), "it was kept long enough");

        intake.apply_at(events(&all), start);
        intake.apply_at(deleted(SUBSET), start);
        intake.apply_at(events(SUBSET), start);
        intake.apply_at(Vec::new(), start + grace::GRACE);
        assert_eq!((subsets(&intake), intake.due()), (1, None), "it came back");
    }
}

fn settings(yaml: &str) -> Event {
    Event::Mesh(Arc::new(crate::model::mesh_config::parse(yaml).unwrap()))
}

fn namespace(name: &str, label: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{mesh: {label}}}}}\n")
}

// spec: PI-24, GEN-8
#[test]
fn a_namespace_counts_from_when_a_selector_matches_it_until_none_does() {
    let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
    intake.apply(events(&format!("{SERVICE}---\n{}", namespace("default", "off"))));
    assert_eq!(intake.mesh.services.len(), 1, "without selectors everything counts");
    intake.apply(vec![settings("discoverySelectors: [{matchLabels: {mesh: 'on'}}]\n")]);
    assert_eq!(intake.mesh.services.len(), 0, "the namespace does not match");
    intake.apply(events(&SERVICE.replace("name: a", "name: b")));
    assert_eq!(intake.mesh.services.len(), 0, "nor does what comes later");
    let change = intake.apply(events(&namespace("default", "'on'")));
    assert!(change.full);
    assert_eq!(intake.mesh.services.len(), 2, "both were waiting");
    intake.apply(events(&namespace("default", "off")));
    assert_eq!(intake.mesh.services.len(), 0);
    intake.apply(vec![Event::Delete(events(SERVICE).into_iter().find_map(key).unwrap())]);
    intake.apply(vec![settings("{}\n")]);
    assert_eq!(intake.mesh.services.len(), 1, "what was deleted while it did not count does not come back");
}

fn key(event: Event) -> Option<Key> {
    if let Event::Upsert(object) = event { Some(object.key.clone()) } else { None }
}

#[test]
fn an_object_that_makes_no_sense_keeps_its_last_good_version() {
    let mut intake = Intake::new(Mesh::empty(MeshConfig::default()));
    intake.apply(events(&format!("{SERVICE}---\n{}", rule("a", 1))));
    intake.apply(events(&rule("a", -5)));
    assert_eq!(intake.mesh.virtual_services[0].http[0].route[0].weight, Some(1));
    let problem = intake.problems().next().unwrap();
    assert_eq!(
        (problem.class, problem.line, problem.field.as_str()),
        (Class::Semantic, Some(9), "spec.http[0].route[0].weight")
    );
}
