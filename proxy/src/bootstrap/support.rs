//! Which fields of a bootstrap have a meaning here. A field that Envoy would obey and we would not is refused by name;
//! one that only tunes Envoy's own machinery is accepted and has nothing to act on.

use super::BootstrapError;
use proto::envoy::accesslog::{AccessLog, access_log};
use proto::envoy::bootstrap::{Bootstrap as Written, ClusterManager};
use proto::envoy::extensions::access_loggers::file::v3::FileAccessLog;

/// The error for something that Envoy has and this proxy does not have yet.
pub(super) fn not_yet(path: impl AsRef<str>) -> BootstrapError {
    BootstrapError::field(path.as_ref(), format!("not supported yet: {}", path.as_ref()))
}

/// Refuses what would be ignored.
#[expect(deprecated, reason = "old bootstraps still hold these fields")]
pub(super) fn check(written: &Written) -> Result<(), BootstrapError> {
    let dynamic = written.dynamic_resources.as_ref();
    let admin = written.admin.as_ref();
    let refused = [
        ("hds_config", written.hds_config.is_some()),
        ("flags_path", !written.flags_path.is_empty()),
        ("tracing", written.tracing.is_some()),
        ("overload_manager", written.overload_manager.is_some()),
        ("header_prefix", !written.header_prefix.is_empty() && written.header_prefix != "x-envoy"),
        ("use_tcp_for_dns_lookups", written.use_tcp_for_dns_lookups),
        ("fatal_actions", !written.fatal_actions.is_empty()),
        ("config_sources", !written.config_sources.is_empty()),
        ("default_config_source", written.default_config_source.is_some()),
        ("default_socket_interface", !written.default_socket_interface.is_empty()),
        ("certificate_provider_instances", !written.certificate_provider_instances.is_empty()),
        ("inline_headers", !written.inline_headers.is_empty()),
        ("xds_delegate_extension", written.xds_delegate_extension.is_some()),
        ("xds_config_tracker_extension", written.xds_config_tracker_extension.is_some()),
        ("node_context_params", !written.node_context_params.is_empty()),
        ("enable_dispatcher_stats", written.enable_dispatcher_stats),
        ("dynamic_resources.lds_resources_locator", dynamic.is_some_and(|d| !d.lds_resources_locator.is_empty())),
        ("dynamic_resources.cds_resources_locator", dynamic.is_some_and(|d| !d.cds_resources_locator.is_empty())),
        ("admin.access_log", admin.is_some_and(|admin| !admin.access_log.iter().all(writes_nowhere))),
        ("admin.access_log_path", admin.is_some_and(|admin| !logs_nowhere(&admin.access_log_path))),
        ("admin.socket_options", admin.is_some_and(|admin| !admin.socket_options.is_empty())),
        ("admin.allow_paths", admin.is_some_and(|admin| !admin.allow_paths.is_empty())),
    ];
    match refused.iter().find(|(_, given)| *given) {
        Some((path, _)) => Err(not_yet(path)),
        None => Ok(()),
    }
}

/// Whether more is said of clusters than how their connections bind, which has an effect.
fn tunes_more_than_binding(manager: &ClusterManager) -> bool {
    *manager
        != ClusterManager { upstream_bind_config: manager.upstream_bind_config.clone(), ..ClusterManager::default() }
}

fn logs_nowhere(path: &str) -> bool {
    path.is_empty() || path == "/dev/null"
}

/// Whether an access log goes to `/dev/null`, as Istio's does.
fn writes_nowhere(log: &AccessLog) -> bool {
    let Some(access_log::ConfigType::TypedConfig(any)) = &log.config_type else { return false };
    proto::any::unpack::<FileAccessLog>(any).is_ok_and(|file| logs_nowhere(&file.path))
}

/// Fields that are accepted and change nothing here, for one line in the log at the start.
pub(super) fn without_effect(written: &Written) -> Vec<&'static str> {
    let stats = written.stats_config.as_ref();
    let fields = [
        ("application_log_config", written.application_log_config.is_some()),
        ("bootstrap_extensions", !written.bootstrap_extensions.is_empty()),
        ("watchdogs", written.watchdogs.is_some()),
        ("cluster_manager", written.cluster_manager.as_ref().is_some_and(tunes_more_than_binding)),
        ("memory_allocator_manager", written.memory_allocator_manager.is_some()),
        ("stats_flush_interval", written.stats_flush_interval.is_some() && written.stats_sinks.is_empty()),
        ("deferred_stat_options", written.deferred_stat_options.is_some()),
        ("typed_dns_resolver_config", written.typed_dns_resolver_config.is_some()),
        ("default_regex_engine", written.default_regex_engine.is_some()),
        ("stats_config.use_all_default_tags", stats.is_some_and(|stats| stats.use_all_default_tags.is_some())),
    ];
    fields.into_iter().filter(|(_, given)| *given).map(|(field, _)| field).collect()
}
