//! The plugin on the node: its program, and its place in the network configuration (IN-11). When another network changes the
//! configuration, the place is taken again.

use super::AgentArgs;
use super::serve::SOCKET;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The plugin's name: its program and its type.
const TYPE: &str = "istio-cni";
/// File of a configuration that is not chained.
const OWN_FILE: &str = "YYY-istio-cni.conflist";
/// Time between two looks at the configuration.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Largest configuration that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What is put onto the node.
#[derive(Debug)]
pub(super) struct Installation {
    program: PathBuf,
    bin_dir: PathBuf,
    conf_dir: PathBuf,
    conf_file: String,
    chained: bool,
    socket: PathBuf,
}

impl Installation {
    pub(super) fn of(args: &AgentArgs) -> Self {
        Self {
            program: args.plugin.clone(),
            bin_dir: args.bin_dir.clone(),
            conf_dir: args.conf_dir.clone(),
            conf_file: args.conf_file.clone(),
            chained: args.chained,
            socket: args.run_dir.join(SOCKET),
        }
    }

    /// Copies the program, whole or not at all.
    pub(super) fn program(&self) -> anyhow::Result<()> {
        let (to, part) = (self.bin_dir.join(TYPE), self.bin_dir.join(format!(".{TYPE}.part")));
        let copied = std::fs::copy(&self.program, &part).and_then(|_| {
            std::fs::set_permissions(&part, Permissions::from_mode(0o755))?;
            std::fs::rename(&part, &to)
        });
        copied.with_context(|| format!("cannot bring {} to {}", self.program.display(), to.display()))
    }

    /// Waits until there is a configuration, and takes its place in it.
    pub(super) async fn first(&self) -> anyhow::Result<()> {
        let mut told = false;
        while !self.take_place()? {
            if !told {
                tracing::info!("waits for a network configuration in {}", self.conf_dir.display());
                told = true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Takes the place again for ever.
    pub(super) async fn keep(&self) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if let Err(error) = self.take_place() {
                tracing::warn!("the plugin's place in the network configuration is lost: {error:#}");
            }
        }
    }

    /// Whether there is a configuration with the plugin in it; it is changed where that is needed.
    fn take_place(&self) -> anyhow::Result<bool> {
        if !self.chained {
            let name = if self.conf_file.is_empty() { OWN_FILE } else { &self.conf_file };
            let alone = json!({"cniVersion": "0.3.1", "name": TYPE, "type": TYPE, "socket": self.socket});
            let path = self.conf_dir.join(name);
            if read(&path).ok() != Some(alone.clone()) {
                write(&path, &alone)?;
            }
            return Ok(true);
        }
        let Some(path) = self.configuration()? else { return Ok(false) };
        let found = read(&path)?;
        let Some(wanted) = with_plugin(&found, &self.socket) else {
            anyhow::bail!("{} has no plugins", path.display());
        };
        if wanted != found {
            // A single plugin becomes a list, whose file must say so.
            let list = path.with_extension("conflist");
            write(&list, &wanted)?;
            if list != path {
                std::fs::remove_file(&path)?;
            }
            tracing::info!("the plugin has its place in {}", list.display());
        }
        Ok(true)
    }

    /// The file that the runtime reads: the first one by name.
    fn configuration(&self) -> anyhow::Result<Option<PathBuf>> {
        if !self.conf_file.is_empty() {
            let path = self.conf_dir.join(&self.conf_file);
            return Ok(path.exists().then_some(path));
        }
        let entries = std::fs::read_dir(&self.conf_dir).with_context(|| format!("{}", self.conf_dir.display()))?;
        let is_one = |path: &PathBuf| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("conflist" | "conf" | "json"))
        };
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
        found.sort();
        Ok(found.into_iter().find(|path| read(path).is_ok()))
    }

    /// Leaves the node as it was. The configuration first: what it names must be there.
    pub(super) fn remove(&self) {
        let cleared = if self.chained { self.clear() } else { self.remove_own() };
        match cleared {
            Ok(()) => drop(std::fs::remove_file(self.bin_dir.join(TYPE))),
            Err(error) => tracing::warn!("the plugin stays in the network configuration: {error:#}"),
        }
    }

    fn remove_own(&self) -> anyhow::Result<()> {
        let name = if self.conf_file.is_empty() { OWN_FILE } else { &self.conf_file };
        Ok(std::fs::remove_file(self.conf_dir.join(name))?)
    }

    fn clear(&self) -> anyhow::Result<()> {
        let Some(path) = self.configuration()? else { return Ok(()) };
        let mut found = read(&path)?;
        if let Some(plugins) = found["plugins"].as_array_mut() {
            plugins.retain(|plugin| plugin["type"] != TYPE);
        }
        write(&path, &found)
    }
}

/// A configuration with the plugin at its end; none where it is no configuration.
fn with_plugin(found: &Value, socket: &Path) -> Option<Value> {
    let plugin = json!({"type": TYPE, "socket": socket});
    let mut list = if found["plugins"].is_array() {
        found.clone()
    } else if found["type"].is_string() {
        let mut single = found.clone();
        let outer = |name: &str| found[name].clone();
        if let Some(fields) = single.as_object_mut() {
            fields.shift_remove("cniVersion");
            fields.shift_remove("name");
        }
        json!({"cniVersion": outer("cniVersion"), "name": outer("name"), "plugins": [single]})
    } else {
        return None;
    };
    let plugins = list["plugins"].as_array_mut()?;
    plugins.retain(|one| one["type"] != TYPE);
    plugins.push(plugin);
    Some(list)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let size = std::fs::metadata(path).with_context(|| format!("{}", path.display()))?.len();
    anyhow::ensure!(size <= MAX_BYTES, "{} is larger than 1 MiB", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
}

/// Writes a file, whole or not at all.
fn write(path: &Path, value: &Value) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let written =
        std::fs::write(&part, serde_json::to_string_pretty(value)?).and_then(|()| std::fs::rename(&part, path));
    written.with_context(|| format!("{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(directory: &Path, chained: bool) -> Installation {
        let make = |name: &str| {
            let path = directory.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let program = directory.join("program");
        std::fs::write(&program, "x").unwrap();
        Installation {
            program,
            bin_dir: make("bin"),
            conf_dir: make("conf"),
            conf_file: String::new(),
            chained,
            socket: "/s".into(),
        }
    }

    // spec: IN-11
    #[tokio::test]
    async fn the_plugin_takes_the_last_place_and_takes_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let own = installation(directory.path(), true);
        own.program().unwrap();
        assert!(!own.take_place().unwrap(), "there is no network yet");
        let conf = own.conf_dir.join("10-net.conflist");
        let network = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "ptp"}, {"type": "portmap"}]});
        std::fs::write(own.conf_dir.join("99-later.conflist"), network.to_string()).unwrap();
        for _ in 0..2 {
            std::fs::write(&conf, network.to_string()).unwrap();
            own.first().await.unwrap();
            let types = |value: &Value| {
                let all =
                    value["plugins"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap().to_owned());
                all.collect::<Vec<_>>()
            };
            assert_eq!(types(&read(&conf).unwrap()), ["ptp", "portmap", "istio-cni"]);
            own.first().await.unwrap();
            assert_eq!(types(&read(&conf).unwrap()).len(), 3, "once");
        }
        own.remove();
        assert_eq!(read(&conf).unwrap(), network);
        assert!(!own.bin_dir.join(TYPE).exists());
    }

    // spec: IN-11
    #[test]
    fn a_single_plugin_becomes_a_list() {
        let directory = tempfile::tempdir().unwrap();
        let own = installation(directory.path(), true);
        let single = own.conf_dir.join("10-net.conf");
        std::fs::write(&single, json!({"cniVersion": "0.3.1", "name": "net", "type": "bridge", "mtu": 1}).to_string())
            .unwrap();
        assert!(own.take_place().unwrap());
        assert!(!single.exists());
        let list = read(&own.conf_dir.join("10-net.conflist")).unwrap();
        assert_eq!((&list["name"], &list["plugins"][0]["mtu"]), (&json!("net"), &json!(1)));
        assert_eq!(list["plugins"][1], json!({"type": "istio-cni", "socket": "/s"}));
    }

    // spec: IN-23
    #[test]
    fn without_a_chain_it_has_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let mut own = installation(directory.path(), false);
        own.conf_file = "istio-cni.conf".to_owned();
        assert!(own.take_place().unwrap());
        assert_eq!(read(&own.conf_dir.join("istio-cni.conf")).unwrap()["type"], "istio-cni");
        own.remove();
        assert!(!own.conf_dir.join("istio-cni.conf").exists());
    }
}
