//! A mesh out of files: what pilot would make of them, worked out here with pilot's own library.

use crate::explain::source::Workload;
use anyhow::Context;
use pilot::delivery::intake::Intake;
use pilot::model::{Mesh, MeshConfig, mesh_config, scope};
use pilot::registry;
use pilot::source::{Event, Object, Problem, memory};
use pilot::translate::node::{Flavor, Role};
use pilot::translate::{Cache, Class, Node, Snapshot};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file that is read, and most of standard input.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// How deep directories are read with `recursive`.
const MAX_DEPTH: usize = 16;

/// A mesh out of files.
#[derive(Debug)]
pub struct Offline {
    /// The objects, in the order of files.
    pub objects: Vec<Arc<Object>>,
    /// What is wrong with the files and with objects in them.
    pub problems: Vec<Problem>,
    /// Kinds that were passed over.
    pub unused: Vec<String>,
    /// The mesh.
    pub mesh: Mesh,
    workloads: Vec<Workload>,
}

impl Offline {
    /// Reads files and directories (not the directories below them).
    ///
    /// # Errors
    /// Where one cannot be read; what is wrong inside of a file is a problem, not an error.
    pub fn read(paths: &[PathBuf], mesh_config: Option<&Path>) -> anyhow::Result<Self> {
        let mut texts = Vec::new();
        for path in paths {
            for file in files(path, false)? {
                texts.push((shown(path, &file), read(&file)?));
            }
        }
        Ok(Self::of(&texts, settings(mesh_config)?))
    }

    /// The mesh of these texts, each with the name of its file, or none where it is out of no file; of an object that is written twice the last one counts.
    pub fn of(texts: &[(String, String)], config: MeshConfig) -> Self {
        let (mut objects, mut problems, mut unused) = (Vec::<Arc<Object>>::new(), Vec::new(), BTreeSet::new());
        for (file, text) in texts {
            let parsed = memory::parse(text, Some(&Arc::from(file.as_str())));
            problems.extend(parsed.problems);
            unused.extend(parsed.unused);
            for object in parsed.objects {
                objects.retain(|known| known.key != object.key);
                objects.push(object);
            }
        }
        let mut intake = Intake::new(Mesh::empty(config));
        intake.apply(objects.iter().cloned().map(Event::Upsert).collect());
        problems.extend(intake.problems().cloned());
        let workloads = workloads(&intake.mesh);
        Self { objects, problems, unused: unused.into_iter().collect(), mesh: intake.mesh, workloads }
    }

    /// All workloads, by namespace and name.
    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    /// Whether a proxy stands beside the workload: injection has labelled it, or has labelled nobody, for then the objects
    /// are those of before the injection.
    pub fn has_proxy(&self, workload: &Workload) -> bool {
        let labelled = |own: &Workload| own.labels.contains_key(proto::wire::LABEL_TLS_MODE);
        labelled(workload) || !self.workloads.iter().any(labelled)
    }

    /// Trust domain of the mesh.
    pub fn trust_domain(&self) -> &str {
        &self.mesh.config.trust_domain
    }

    /// File and line of an object.
    pub fn written(&self, kind: &str, namespace: &str, name: &str) -> Option<(String, Option<u64>)> {
        let same = |object: &&Arc<Object>| {
            format!("{:?}", object.key.kind) == kind && &*object.key.namespace == namespace && &*object.key.name == name
        };
        let origin = self.objects.iter().find(same)?.origin.as_ref()?;
        Some((origin.file.to_string(), Some(origin.document.line.into())))
    }

    /// What the workload's proxy would be told.
    pub fn snapshot(&self, workload: &Workload) -> Snapshot {
        let class = Class::of(&self.node(workload), &self.mesh);
        let scope = match class.role {
            Role::Sidecar => {
                let sidecar = scope::choose(&self.mesh, &class.namespace, &class.place.labels);
                scope::build(&self.mesh, &class.namespace, sidecar)
            }
            Role::Router => scope::of_gateway(&self.mesh, &class.namespace),
        };
        Snapshot::build(&class, &self.mesh, &scope, &mut Cache::default())
    }

    /// The same, as pilot's `/debug/config_dump` shows it.
    pub fn dump(&self, workload: &Workload) -> Value {
        pilot::ads::debug::dump(&self.snapshot(workload), |_| true)
    }

    /// The node that the workload's proxy would be. One that a Gateway selects is a gateway.
    fn node(&self, workload: &Workload) -> Node {
        let selected = |gateway: &pilot::model::gateway::Gateway| {
            !gateway.selector.is_empty() && registry::entry::selects(&gateway.selector, &workload.labels)
        };
        let router = self.mesh.gateways.iter().any(|gateway| selected(gateway));
        let (kind, role) = if router { ("router", Role::Router) } else { ("sidecar", Role::Sidecar) };
        let Workload { name, namespace, addresses, .. } = workload;
        let address = addresses.first().map_or("", String::as_str);
        Node {
            id: format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.{}", self.mesh.config.domain),
            role,
            addresses: addresses.clone(),
            name: name.clone(),
            namespace: namespace.clone(),
            labels: Arc::new(workload.labels.clone()),
            locality: registry::Locality::default(),
            node: String::new(),
            cluster: self.mesh.config.cluster.clone(),
            mesh_id: String::new(),
            service_account: workload.service_account.clone(),
            flavor: Flavor::Istio,
            captures_dns: self.mesh.config.captures_dns,
            proxy: self.mesh.config.proxy.clone(),
            version: String::new(),
        }
    }
}

/// The mesh's own settings out of a file; the defaults without one.
///
/// # Errors
/// Where the file cannot be read, or what is wrong in it.
pub fn settings(path: Option<&Path>) -> anyhow::Result<MeshConfig> {
    let Some(path) = path else { return Ok(MeshConfig::default()) };
    let written = mesh_config::parse(&read(path)?).with_context(|| format!("{}", path.display()))?;
    let own = MeshConfig::default();
    Ok(MeshConfig::new(written, &own.domain, &own.cluster))
}

/// The files of a path: itself, or what a directory holds of YAML and JSON, in order; with `recursive` what stands below
/// it too.
///
/// # Errors
/// Where the path cannot be read.
pub fn files(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut pending) = (Vec::new(), vec![(path.to_owned(), 0)]);
    while let Some((path, depth)) = pending.pop() {
        let facts = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !facts.is_dir() {
            found.push(path);
            continue;
        }
        for entry in std::fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?.path();
            let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or(".");
            let kind = entry.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let hidden = name.starts_with(['.', '#']) || name.ends_with('~');
            if entry.is_dir() && recursive && depth < MAX_DEPTH && !hidden {
                pending.push((entry, depth + 1));
            } else if !entry.is_dir() && matches!(kind, "yaml" | "yml" | "json") && !hidden {
                found.push(entry);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The text of a file.
///
/// # Errors
/// Where it cannot be read, or is too large.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    anyhow::ensure!(size <= MAX_FILE_BYTES, "{} is larger than 64 MiB: no file of objects is", path.display());
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What stands on standard input, up to the size of the largest file.
///
/// # Errors
/// Where it cannot be read, or is no text.
pub fn standard_input() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(MAX_FILE_BYTES).read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

/// The name under which a file is shown: that of a directory's file within it, as pilot shows it.
fn shown(given: &Path, file: &Path) -> String {
    file.strip_prefix(given).ok().filter(|rest| !rest.as_os_str().is_empty()).unwrap_or(file).display().to_string()
}

fn workloads(mesh: &Mesh) -> Vec<Workload> {
    let mut seen = BTreeSet::new();
    let all = mesh.workloads.values().filter(|own| seen.insert((own.namespace.clone(), own.name.clone())));
    let mut workloads: Vec<Workload> = all.map(|own| workload(own)).collect();
    workloads.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    workloads
}

fn workload(own: &registry::Workload) -> Workload {
    Workload {
        name: own.name.clone(),
        namespace: own.namespace.clone(),
        addresses: own.addresses.clone(),
        service_account: own.service_account.clone(),
        labels: (*own.labels).clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, labels: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: x{labels}}}}}\nspec: {{}}\n\
             status: {{podIP: 10.0.0.{}}}\n---\n",
            name.len()
        )
    }

    #[test]
    fn pods_without_the_label_of_injection_have_no_proxy_where_others_have_it() {
        let of = |text: String| {
            let offline = Offline::of(&[("f.yaml".to_owned(), text)], MeshConfig::default());
            offline.workloads().iter().map(|own| offline.has_proxy(own)).collect::<Vec<_>>()
        };
        assert_eq!(of([pod("a", ""), pod("bb", "")].concat()), [true, true]);
        let injected = ", security.istio.io/tlsMode: istio";
        assert_eq!(of([pod("a", ""), pod("bb", injected)].concat()), [false, true]);
    }

    #[test]
    fn of_an_object_that_is_written_twice_the_last_one_counts() {
        let texts = [("a.yaml".to_owned(), pod("a", ", v: one")), ("b.yaml".to_owned(), pod("a", ", v: two"))];
        let offline = Offline::of(&texts, MeshConfig::default());
        assert_eq!(offline.workloads()[0].labels["v"], "two");
        assert_eq!(offline.written("Pod", "default", "a"), Some(("b.yaml".to_owned(), Some(1))));
    }
}
