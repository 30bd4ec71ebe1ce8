//! What Envoy's API says of connections that this proxy opens: `GrpcService`, the mark of a `BindConfig`.

use crate::refusal::Refusal;
use proto::duration::from_proto;
use proto::envoy::core::{BindConfig, GrpcService, grpc_service::TargetSpecifier, socket_option};
use std::sync::Arc;
use std::time::Duration;

/// A gRPC service that this proxy calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// `:authority`: what is written, else the cluster's name.
    pub authority: Arc<str>,
    /// Time limit of a call, where one is written.
    pub timeout: Option<Duration>,
}

impl Service {
    /// Reads the message.
    ///
    /// # Errors
    /// It is missing, or is another one than `envoy_grpc`.
    pub fn parse(written: Option<&GrpcService>) -> Result<Self, Refusal> {
        let written = written.ok_or_else(|| Refusal::new("grpc_service", "is needed"))?;
        let Some(TargetSpecifier::EnvoyGrpc(envoy)) = &written.target_specifier else {
            return Err(Refusal::unsupported("grpc_service: only envoy_grpc"));
        };
        let cluster: Arc<str> = envoy.cluster_name.as_str().into();
        let authority = if envoy.authority.is_empty() { Arc::clone(&cluster) } else { envoy.authority.as_str().into() };
        Ok(Self { cluster, authority, timeout: written.timeout.as_ref().map(from_proto) })
    }
}

/// The firewall mark among the socket options of a `BindConfig`.
///
/// # Errors
/// Any other option: it would be ignored.
pub fn bind_mark(bind: Option<&BindConfig>) -> Result<Option<u32>, Refusal> {
    /// `SOL_SOCKET` and `SO_MARK` of Linux.
    const MARK: (i64, i64) = (1, 36);
    let mut mark = None;
    for option in bind.iter().flat_map(|bind| &bind.socket_options) {
        match option.value {
            Some(socket_option::Value::IntValue(value)) if (option.level, option.name) == MARK => {
                mark = u32::try_from(value).ok();
            }
            _ => return Err(Refusal::unsupported("socket_options: only SO_MARK")),
        }
    }
    Ok(mark)
}
