//! Flags, environment and Envoy's bootstrap file → [`Bootstrap`].
//!
//! Knows: where a process gets its start configuration from. Must never know: what the resources in it mean; they go
//! through the same doors as those of a control plane (`xds/fixed.rs`). This is the only reader of the environment.

mod convert;
mod environment;
mod flags;
mod mask;
mod node;
pub mod pod;
mod support;

pub use convert::{BOOTSTRAP, Converter, Direction, JsonArgs, convert};
pub use environment::Environment;
pub use flags::{DrainStrategy, Flags, LogLevel, Mode, component_directives};
pub use node::{USER_AGENT, extensions, node_json};

use prost::Message;
use proto::envoy::bootstrap::{Bootstrap as Written, runtime_layer::LayerSpecifier};
use proto::envoy::core::{Address, BindConfig, ConfigSource, Node, address, socket_address};
use proto::envoy::wkt::{Struct, value::Kind};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A file, or the text of `--config-yaml`, cannot be read.
    #[error("{source_name}: {why}")]
    Source {
        /// The file, or `--config-yaml`.
        source_name: String,
        /// What is wrong, with its line or path.
        why: String,
    },
    /// A field has a value that cannot be used.
    #[error("{path}: {why}")]
    Field {
        /// Path of the field.
        path: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// Nothing was given.
    #[error("no configuration: give a bootstrap with -c FILE or --config-yaml TEXT")]
    Nothing,
}

impl BootstrapError {
    fn field(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { path: path.into(), why: why.into() }
    }
}

/// Where the admin interface listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket and its file mode.
    Unix(PathBuf, u32),
}

/// What a process starts with, checked.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The bootstrap as merged: static resources and sources are taken from here.
    pub written: Written,
    /// Who this proxy is.
    pub node: Node,
    /// Where the admin interface listens; none: nowhere.
    pub admin: Option<AdminAddress>,
    /// Number of worker threads.
    pub concurrency: NonZeroUsize,
    /// How long a stopping listener drains.
    pub drain_time: Duration,
    /// Values of the static runtime layers, by dotted key.
    pub runtime: BTreeMap<String, f64>,
    /// The environment, for access-log operators and secrets.
    pub environment: Environment,
    /// The flags, for what else they say.
    pub flags: Flags,
}

impl Bootstrap {
    /// Reads what the flags name.
    ///
    /// # Errors
    /// [`BootstrapError`] naming the file and its line, or the field.
    pub fn load(flags: Flags, environment: Environment, converter: &Converter) -> Result<Self, BootstrapError> {
        // protobuf merges by concatenation, just as Envoy merges --config-yaml over the file
        let mut bytes = Vec::new();
        if let Some(path) = &flags.config_path {
            bytes.extend(read_file(path, converter)?);
        }
        if let Some(text) = &flags.config_yaml {
            bytes.extend(converter.bootstrap("--config-yaml", text)?);
        }
        if flags.config_path.is_none() && flags.config_yaml.is_none() {
            return Err(BootstrapError::Nothing);
        }
        let written = Written::decode(bytes.as_slice())
            .map_err(|error| BootstrapError::field("bootstrap", format!("no protobuf of a Bootstrap: {error}")))?;
        Self::check(written, flags, environment)
    }

    /// Checks a decoded bootstrap.
    ///
    /// # Errors
    /// [`BootstrapError::Field`] for what is wrong or not supported yet.
    pub fn check(written: Written, flags: Flags, environment: Environment) -> Result<Self, BootstrapError> {
        support::check(&written)?;
        for field in support::without_effect(&written) {
            tracing::info!(field, "this field of the bootstrap tunes Envoy's own machinery and has no effect here");
        }
        let node = node::complete(written.node.clone(), &flags, &environment)?;
        if written.dynamic_resources.as_ref().is_some_and(|dynamic| dynamic.ads_config.is_some()) && node.id.is_empty()
        {
            return Err(BootstrapError::field("node.id", "a control plane needs it: set it here or by --service-node"));
        }
        let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            admin: written.admin.as_ref().and_then(|admin| admin.address.as_ref()).map(admin_address).transpose()?,
            concurrency: flags.concurrency.and_then(NonZeroUsize::new).unwrap_or(cpus),
            drain_time: Duration::from_secs(flags.drain_time_s),
            runtime: runtime(&written)?,
            node,
            environment,
            flags,
            written,
        })
    }

    /// How connections of clusters bind that do not say it themselves.
    pub fn bind(&self) -> Option<&BindConfig> {
        self.written.cluster_manager.as_ref()?.upstream_bind_config.as_ref()
    }

    /// The source of listeners, when the bootstrap names one.
    pub fn lds_config(&self) -> Option<&ConfigSource> {
        self.written.dynamic_resources.as_ref()?.lds_config.as_ref()
    }

    /// The source of clusters, when the bootstrap names one.
    pub fn cds_config(&self) -> Option<&ConfigSource> {
        self.written.dynamic_resources.as_ref()?.cds_config.as_ref()
    }
}

fn read_file(path: &Path, converter: &Converter) -> Result<Vec<u8>, BootstrapError> {
    let source_name = path.display().to_string();
    let failed = |why: String| BootstrapError::Source { source_name: source_name.clone(), why };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pb") => Ok(bytes),
        Some("pb_text") => Err(failed("not supported yet: text protobuf; write it as YAML or JSON".to_owned())),
        _ => {
            let text = String::from_utf8(bytes).map_err(|error| failed(format!("not UTF-8: {error}")))?;
            converter.bootstrap(&source_name, &text)
        }
    }
}

fn admin_address(address: &Address) -> Result<AdminAddress, BootstrapError> {
    match &address.address {
        Some(address::Address::Pipe(pipe)) => {
            let mode = if pipe.mode == 0 { 0o600 } else { pipe.mode };
            Ok(AdminAddress::Unix(PathBuf::from(&pipe.path), mode))
        }
        Some(address::Address::SocketAddress(socket)) => {
            let ip: IpAddr = socket.address.parse().map_err(|_| {
                BootstrapError::field(
                    "admin.address.socket_address.address",
                    format!("{:?} is no IP address", socket.address),
                )
            })?;
            let port = match socket.port_specifier {
                Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
                _ => None,
            };
            let port = port.ok_or_else(|| {
                BootstrapError::field("admin.address.socket_address.port_value", "a port from 0 to 65535 is needed")
            })?;
            Ok(AdminAddress::Tcp(SocketAddr::new(ip, port)))
        }
        _ => Err(BootstrapError::field("admin.address", "a socket_address or a pipe is needed")),
    }
}

/// All static layers, later ones over earlier ones; structs become dotted keys.
fn runtime(written: &Written) -> Result<BTreeMap<String, f64>, BootstrapError> {
    let mut values = BTreeMap::new();
    let layers = written.layered_runtime.iter().flat_map(|layered| &layered.layers);
    for (index, layer) in layers.enumerate() {
        match &layer.layer_specifier {
            Some(LayerSpecifier::StaticLayer(layer)) => flatten("", layer, &mut values),
            Some(LayerSpecifier::AdminLayer(_)) | None => {} // stays empty: there is no /runtime_modify
            Some(LayerSpecifier::DiskLayer(_)) => {
                return Err(support::not_yet(format!("layered_runtime.layers[{index}].disk_layer")));
            }
            Some(LayerSpecifier::RtdsLayer(_)) => {
                return Err(support::not_yet(format!("layered_runtime.layers[{index}].rtds_layer")));
            }
        }
    }
    Ok(values)
}

fn flatten(prefix: &str, layer: &Struct, values: &mut BTreeMap<String, f64>) {
    for (name, value) in &layer.fields {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match &value.kind {
            Some(Kind::NumberValue(number)) => drop(values.insert(key, *number)),
            Some(Kind::BoolValue(on)) => drop(values.insert(key, f64::from(u8::from(*on)))),
            Some(Kind::StringValue(text)) => {
                if let Ok(number) = text.parse() {
                    values.insert(key, number);
                }
            }
            Some(Kind::StructValue(inner)) => flatten(&key, inner, values),
            Some(Kind::ListValue(_) | Kind::NullValue(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
