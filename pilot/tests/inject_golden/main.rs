//! Injected pods against Istio's own golden files, field by field. The files come with the Go module `istio.io/istio`,
//! which `make golden-inject` fetches; nothing of them is in this repository.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a test panics to fail and shows its table"
)]

mod cases;
mod flat;

use cases::{CASES, Case, EXPLAINED, REFUSED};
use flat::{Flat, flat};
use pilot::inject::{Config, MeshSettings, Namespaces, Outcome, Settings, Values, into_object};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The module's version: the state of the repository on 27 August 2026.
const VERSION: &str = "v0.0.0-20260827124520-eed52ebb66ad";

/// Where the samples are.
const SAMPLES: &str = "pkg/kube/inject/testdata/inject";

fn module() -> PathBuf {
    let go = |args: &[&str]| {
        let output = std::process::Command::new("go").args(args).output().expect("Go is needed: make golden-inject");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let directory = Path::new(&go(&["env", "GOMODCACHE"])).join(format!("istio.io/istio@{VERSION}"));
    assert!(directory.is_dir(), "{} is missing: make golden-inject", directory.display());
    directory
}

fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let parts = text.split("\n---").map(|part| part.trim_start_matches("---").trim());
    parts.filter(|part| !part.is_empty()).map(|part| serde_saphyr::from_str(part).unwrap()).collect()
}

fn settings(case: &Case, directory: &Path) -> Settings {
    let mut values = json!({"global": {
        "hub": "registry.istio.io/testing", "tag": "latest",
        "proxy": {"image": "proxyv2"}, "proxy_init": {"image": "proxyv2"},
    }});
    let mut config = Config::built_in();
    if !case.operator.is_empty() {
        for document in documents(&directory.join(case.operator)) {
            set_all(&mut values, &document["spec"]["values"]);
        }
    }
    for (path, value) in case.values {
        let mut place = &mut values;
        for name in path.split('.') {
            place = &mut place[name];
        }
        *place = serde_saphyr::from_str(value).unwrap();
    }
    let templates = values["sidecarInjectorWebhook"]["templates"].as_object().cloned().unwrap_or_default();
    for (name, text) in templates {
        config.add_template(&name, text.as_str().unwrap()).unwrap();
    }
    let values = Values::new(&values);
    let mesh = MeshSettings::parse(case.mesh).unwrap();
    Settings { config, values, mesh, revision: String::new(), native_sidecars: !case.old_cluster }
}

fn set_all(values: &mut Value, given: &Value) {
    match given.as_object() {
        Some(fields) if values.is_object() || values.is_null() => {
            fields.iter().for_each(|(name, value)| set_all(&mut values[name], value));
        }
        _ => *values = given.clone(),
    }
}

/// Differences of one case: path, Istio's value, ours.
fn differences(istio: &Flat, ours: &Flat) -> Vec<(String, Option<Value>, Option<Value>)> {
    let paths: BTreeSet<&String> = istio.keys().chain(ours.keys()).collect();
    let pairs = paths.into_iter().map(|path| (path.clone(), istio.get(path).cloned(), ours.get(path).cloned()));
    pairs.filter(|(_, istio, ours)| istio != ours).collect()
}

/// What all cases together gave.
#[derive(Default)]
struct Tally {
    objects: usize,
    fields: usize,
    explained: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn compare(&mut self, case: &Case, istio: &Flat, ours: &Flat) {
        self.objects += 1;
        self.fields += istio.len();
        for (path, istio, ours) in differences(istio, ours) {
            match EXPLAINED.iter().find(|known| known.covers(case.golden, &path)) {
                Some(known) => *self.explained.entry(known.path).or_default() += 1,
                None => self.wrong.push(format!("{}: {path}\n  istio {istio:?}\n  ours  {ours:?}", case.golden)),
            }
        }
    }

    fn show(&self) {
        println!("{} cases, {} objects, {} fields; explained differences:", CASES.len(), self.objects, self.fields);
        for known in EXPLAINED {
            let count = self.explained.get(known.path).copied().unwrap_or_default();
            println!("  {count:5} {:45} {}", known.path, known.why);
        }
        assert!(self.wrong.is_empty(), "{} differences:\n{}", self.wrong.len(), self.wrong.join("\n"));
    }
}

/// Injects every case; `prepare` may change the settings.
fn inject_all(prepare: impl Fn(&mut Settings)) -> Tally {
    let directory = module().join(SAMPLES);
    let ids = |name: &str| (format!("openshift.io/sa.scc.{name}"), "1000620000/10000".to_owned());
    let open_shift: Namespaces = [("test-ns".to_owned(), ["uid-range", "supplemental-groups"].map(ids).into())].into();
    let mut tally = Tally::default();
    for case in CASES {
        let mut settings = settings(case, &directory);
        prepare(&mut settings);
        let namespaces = if case.golden.contains("openshift") { open_shift.clone() } else { Namespaces::new() };
        let mut inputs = documents(&directory.join(case.input));
        let golden = documents(&directory.join(case.golden));
        assert_eq!(inputs.len(), golden.len(), "{}", case.golden);
        for (object, golden) in inputs.iter_mut().zip(&golden) {
            let mut inject = || {
                let outcome = into_object(object, &settings, &namespaces);
                let outcome = outcome.unwrap_or_else(|error| panic!("{}: {error}", case.golden));
                assert_ne!(outcome, Outcome::List(Vec::new()), "{}", case.golden);
                flat(object)
            };
            let (once, twice) = (inject(), inject());
            // The status of merge-probers is not true: it names containers that it does not have.
            let same = case.input == "merge-probers.yaml" || once == twice;
            assert!(same, "{}: a second injection changes it", case.golden);
            tally.compare(case, &flat(golden), &once);
        }
    }
    tally
}

// spec: PI-57, PI-59, PI-60, PI-61, PI-62, PI-63, PI-64, PI-65, PI-66
#[test]
#[ignore = "needs the Go module istio.io/istio: make golden-inject"]
fn pods_are_istios_but_for_what_is_explained() {
    let tally = inject_all(|_| {});
    tally.show();
    for known in EXPLAINED {
        assert!(tally.explained.contains_key(known.path), "no case differs in {}: it is stale", known.path);
    }
}

/// The templates that Istio's users have in their clusters give the same pods as ours.
// spec: PI-57
#[test]
#[ignore = "needs the Go module istio.io/istio: make golden-inject"]
fn istios_own_templates_are_understood() {
    let files = module().join("manifests/charts/istio-control/istio-discovery/files");
    let read = |name: &str| std::fs::read_to_string(files.join(name)).unwrap();
    let (sidecar, gateway) = (read("injection-template.yaml"), read("gateway-injection-template.yaml"));
    let tally = inject_all(|settings| {
        settings.config.add_template("sidecar", &sidecar).unwrap();
        settings.config.add_template("gateway", &gateway).unwrap();
    });
    tally.show();
}

// spec: PI-32, PI-57
#[test]
#[ignore = "needs the Go module istio.io/istio: make golden-inject"]
fn pods_that_no_proxy_would_serve_are_refused() {
    let directory = module().join(SAMPLES);
    for case in REFUSED {
        let mut object = documents(&directory.join(case.input)).remove(0);
        let refused = into_object(&mut object, &settings(case, &directory), &Namespaces::new()).unwrap_err();
        assert!(refused.to_string().contains("TPROXY"), "{}: {refused}", case.golden);
    }
}

// spec: AN-1
#[test]
#[ignore = "needs the Go module istio.io/istio: make golden-inject"]
fn bad_annotations_are_refused_by_name() {
    let directory = module().join(SAMPLES);
    for name in
        ["includeinboundports", "excludeinboundports", "excludeoutboundports", "includeipranges", "excludeipranges"]
    {
        let file = format!("traffic-annotations-bad-{name}.yaml");
        let mut object = documents(&directory.join(file)).remove(0);
        let error =
            into_object(&mut object, &settings(&CASES[0], &directory), &Namespaces::new()).unwrap_err().to_string();
        let wanted = name.replace("ipranges", "outboundipranges");
        assert!(error.to_lowercase().contains(&wanted), "{error}");
    }
}
