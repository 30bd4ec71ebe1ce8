//! What is held, as the messages of Envoy's `/config_dump` (spec AD-1, AD-12).

use super::{Held, Kind, Origin, Refused, Store};
use prost::{Message, Name};
use proto::any::pack;
use proto::envoy::admin::{
    BootstrapConfigDump, ClustersConfigDump, EcdsConfigDump, EndpointsConfigDump, ListenersConfigDump,
    RoutesConfigDump, ScopedRoutesConfigDump, SecretsConfigDump, UpdateFailureState, clusters_config_dump::*,
    ecds_config_dump::*, endpoints_config_dump::*, listeners_config_dump::*, routes_config_dump::*,
    secrets_config_dump::*,
};
use proto::envoy::bootstrap::Bootstrap;
use proto::envoy::hcm::{HttpConnectionManager, http_connection_manager::RouteSpecifier};
use proto::envoy::listener::{Listener, filter};
use proto::envoy::wkt::{Any, Timestamp};
use regex::Regex;
use std::time::{SystemTime, UNIX_EPOCH};

/// What of the dump is wanted.
#[derive(Debug, Default, Clone)]
pub struct DumpSelection {
    /// Only resources of this field of a section, such as `dynamic_active_clusters`.
    pub resource: Option<String>,
    /// Only resources whose name this matches.
    pub name: Option<Regex>,
    /// Endpoints too.
    pub include_eds: bool,
}

/// One section of the dump: the message as a whole, and its resources by field for those who ask for one field.
struct Section {
    whole: Any,
    fields: Vec<(&'static str, Vec<Any>)>,
}

/// The `configs` of an `envoy.admin.v3.ConfigDump`, one by one.
///
/// # Errors
/// The name of a field that no section has.
pub fn config_dump<'a>(
    store: &'a Store,
    bootstrap: &'a Bootstrap,
    wanted: &'a DumpSelection,
) -> Result<Vec<Any>, String> {
    let sections: [fn(&Dump<'a>) -> Section; 8] = [
        Dump::bootstrap,
        Dump::clusters,
        Dump::endpoints,
        Dump::listeners,
        Dump::scoped_routes,
        Dump::routes,
        Dump::secrets,
        Dump::extensions,
    ];
    let dump = Dump { store, bootstrap, wanted };
    let Some(resource) = &wanted.resource else {
        let is_shown = |section: &Section| {
            wanted.include_eds || section.whole.type_url != pack(&EndpointsConfigDump::default()).type_url
        };
        return Ok(sections
            .iter()
            .map(|section| section(&dump))
            .filter(is_shown)
            .map(|section| section.whole)
            .collect());
    };
    for section in sections {
        if let Some((_, resources)) = section(&dump).fields.into_iter().find(|(field, _)| field == resource) {
            return Ok(resources);
        }
    }
    Err(format!("{resource} not found in config dump"))
}

struct Dump<'a> {
    store: &'a Store,
    bootstrap: &'a Bootstrap,
    wanted: &'a DumpSelection,
}

impl Dump<'_> {
    fn bootstrap(&self) -> Section {
        let dump = BootstrapConfigDump { bootstrap: Some(self.bootstrap.clone()), last_updated: None };
        section(&dump, vec![("bootstrap", vec![pack(self.bootstrap)])])
    }

    fn clusters(&self) -> Section {
        let mut dump =
            ClustersConfigDump { version_info: self.version(Kind::Cluster), ..ClustersConfigDump::default() };
        for held in self.held(Kind::Cluster, true) {
            let (cluster, last_updated) = (body(Kind::Cluster, held), stamp(held.accepted_at));
            dump.static_clusters.push(StaticCluster { cluster, last_updated });
        }
        for held in self.held(Kind::Cluster, false) {
            dump.dynamic_active_clusters.push(DynamicCluster {
                version_info: held.resource.version.to_string(),
                cluster: body(Kind::Cluster, held),
                last_updated: stamp(held.accepted_at),
                error_state: self.failure(Kind::Cluster, &held.resource.name),
                ..DynamicCluster::default()
            });
        }
        for refused in self.refused_only(Kind::Cluster) {
            dump.dynamic_warming_clusters.push(DynamicCluster {
                version_info: refused.version.to_string(),
                error_state: Some(failure(refused)),
                ..DynamicCluster::default()
            });
        }
        let fields = vec![
            ("static_clusters", elements(&dump.static_clusters)),
            ("dynamic_active_clusters", elements(&dump.dynamic_active_clusters)),
            ("dynamic_warming_clusters", elements(&dump.dynamic_warming_clusters)),
        ];
        section(&dump, fields)
    }

    fn endpoints(&self) -> Section {
        let mut dump = EndpointsConfigDump::default();
        for held in self.held(Kind::Endpoint, false) {
            dump.dynamic_endpoint_configs.push(DynamicEndpointConfig {
                version_info: held.resource.version.to_string(),
                endpoint_config: body(Kind::Endpoint, held),
                last_updated: stamp(held.accepted_at),
                error_state: self.failure(Kind::Endpoint, &held.resource.name),
                ..DynamicEndpointConfig::default()
            });
        }
        let fixed = self.bootstrap.static_resources.iter().flat_map(|fixed| &fixed.clusters);
        for assignment in fixed
            .filter_map(|cluster| cluster.load_assignment.as_ref())
            .filter(|load| self.is_named(&load.cluster_name))
        {
            let config = StaticEndpointConfig { endpoint_config: Some(pack(assignment)), last_updated: None };
            dump.static_endpoint_configs.push(config);
        }
        let fields = vec![
            ("static_endpoint_configs", elements(&dump.static_endpoint_configs)),
            ("dynamic_endpoint_configs", elements(&dump.dynamic_endpoint_configs)),
        ];
        section(&dump, fields)
    }

    fn listeners(&self) -> Section {
        let mut dump =
            ListenersConfigDump { version_info: self.version(Kind::Listener), ..ListenersConfigDump::default() };
        for held in self.held(Kind::Listener, true) {
            let (listener, last_updated) = (body(Kind::Listener, held), stamp(held.accepted_at));
            dump.static_listeners.push(StaticListener { listener, last_updated });
        }
        for held in self.held(Kind::Listener, false) {
            let active_state = DynamicListenerState {
                version_info: held.resource.version.to_string(),
                listener: body(Kind::Listener, held),
                last_updated: stamp(held.accepted_at),
            };
            dump.dynamic_listeners.push(DynamicListener {
                name: held.resource.name.to_string(),
                active_state: Some(active_state),
                error_state: self.failure(Kind::Listener, &held.resource.name),
                ..DynamicListener::default()
            });
        }
        for refused in self.refused_only(Kind::Listener) {
            dump.dynamic_listeners.push(DynamicListener {
                name: refused.rejection.name.to_string(),
                error_state: Some(failure(refused)),
                ..DynamicListener::default()
            });
        }
        let fields = vec![
            ("static_listeners", elements(&dump.static_listeners)),
            ("dynamic_listeners", elements(&dump.dynamic_listeners)),
        ];
        section(&dump, fields)
    }

    fn scoped_routes(&self) -> Section {
        section(&ScopedRoutesConfigDump::default(), Vec::new())
    }

    fn routes(&self) -> Section {
        let mut dump = RoutesConfigDump::default();
        // routes that listeners hold themselves, as inbound ones do
        for held in self.store.of(Kind::Listener) {
            let Ok(listener) = Listener::decode(held.resource.body.clone()) else { continue };
            for config in inline_routes(&listener).filter(|config| self.is_named(&config.name)) {
                let last_updated = stamp(held.accepted_at);
                dump.static_route_configs.push(StaticRouteConfig { route_config: Some(pack(&config)), last_updated });
            }
        }
        for held in self.held(Kind::Route, false) {
            dump.dynamic_route_configs.push(DynamicRouteConfig {
                version_info: held.resource.version.to_string(),
                route_config: body(Kind::Route, held),
                last_updated: stamp(held.accepted_at),
                error_state: self.failure(Kind::Route, &held.resource.name),
                ..DynamicRouteConfig::default()
            });
        }
        let fields = vec![
            ("static_route_configs", elements(&dump.static_route_configs)),
            ("dynamic_route_configs", elements(&dump.dynamic_route_configs)),
        ];
        section(&dump, fields)
    }

    fn secrets(&self) -> Section {
        let mut dump = SecretsConfigDump::default();
        for held in self.held(Kind::Secret, true) {
            dump.static_secrets.push(StaticSecret {
                name: held.resource.name.to_string(),
                last_updated: stamp(held.accepted_at),
                secret: body(Kind::Secret, held),
            });
        }
        for held in self.held(Kind::Secret, false) {
            dump.dynamic_active_secrets.push(DynamicSecret {
                name: held.resource.name.to_string(),
                version_info: held.resource.version.to_string(),
                last_updated: stamp(held.accepted_at),
                secret: body(Kind::Secret, held),
                error_state: self.failure(Kind::Secret, &held.resource.name),
                ..DynamicSecret::default()
            });
        }
        let fields = vec![
            ("static_secrets", elements(&dump.static_secrets)),
            ("dynamic_active_secrets", elements(&dump.dynamic_active_secrets)),
        ];
        section(&dump, fields)
    }

    fn extensions(&self) -> Section {
        let mut dump = EcdsConfigDump::default();
        for held in self.held(Kind::ExtensionConfig, false) {
            dump.ecds_filters.push(EcdsFilterConfig {
                version_info: held.resource.version.to_string(),
                ecds_filter: body(Kind::ExtensionConfig, held),
                last_updated: stamp(held.accepted_at),
                ..EcdsFilterConfig::default()
            });
        }
        let fields = vec![("ecds_filters", elements(&dump.ecds_filters))];
        section(&dump, fields)
    }

    fn held(&self, kind: Kind, fixed: bool) -> impl Iterator<Item = &Held> {
        let of_kind = self.store.of(kind).map(|held| &**held);
        of_kind.filter(move |held| (held.origin == Origin::Bootstrap) == fixed && self.is_named(&held.resource.name))
    }

    /// Refused resources of which no good version is held.
    fn refused_only(&self, kind: Kind) -> impl Iterator<Item = &Refused> {
        let refused =
            self.store.refused().map(|refused| &**refused).filter(move |refused| refused.rejection.kind == kind);
        refused.filter(move |refused| {
            let name = &refused.rejection.name;
            self.store.get(kind, name).is_none() && self.is_named(name)
        })
    }

    fn failure(&self, kind: Kind, name: &str) -> Option<UpdateFailureState> {
        let mut refused = self.store.refused();
        let found = refused.find(|refused| refused.rejection.kind == kind && *refused.rejection.name == *name)?;
        Some(failure(found))
    }

    fn is_named(&self, name: &str) -> bool {
        self.wanted.name.as_ref().is_none_or(|wanted| wanted.is_match(name))
    }

    /// The version that was accepted last; delta resources have versions of their own.
    fn version(&self, kind: Kind) -> String {
        let dynamic = self.store.of(kind).filter(|held| held.origin != Origin::Bootstrap);
        let latest = dynamic.max_by_key(|held| held.accepted_at);
        latest.map(|held| held.resource.version.to_string()).unwrap_or_default()
    }
}

fn section<M: Message + Name>(dump: &M, fields: Vec<(&'static str, Vec<Any>)>) -> Section {
    Section { whole: pack(dump), fields }
}

fn elements<M: Message + Name>(list: &[M]) -> Vec<Any> {
    list.iter().map(pack).collect()
}

fn body(kind: Kind, held: &Held) -> Option<Any> {
    Some(Any { type_url: kind.type_url().to_owned(), value: held.resource.body.to_vec() })
}

fn failure(refused: &Refused) -> UpdateFailureState {
    UpdateFailureState {
        last_update_attempt: stamp(refused.at),
        details: refused.rejection.to_string(),
        version_info: refused.version.to_string(),
        ..UpdateFailureState::default()
    }
}

fn inline_routes(listener: &Listener) -> impl Iterator<Item = proto::envoy::route::RouteConfiguration> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.flat_map(|chain| &chain.filters).filter_map(|filter| {
        let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else { return None };
        let hcm: HttpConnectionManager = proto::any::unpack(any).ok()?;
        match hcm.route_specifier {
            Some(RouteSpecifier::RouteConfig(config)) => Some(config),
            _ => None,
        }
    })
}

fn stamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp { seconds: i64::try_from(since.as_secs()).ok()?, nanos: i32::try_from(since.subsec_nanos()).ok()? })
}

/// A dump of these configs as the encoded `envoy.admin.v3.ConfigDump`.
pub fn encode(configs: Vec<Any>) -> Vec<u8> {
    proto::envoy::admin::ConfigDump { configs }.encode_to_vec()
}
