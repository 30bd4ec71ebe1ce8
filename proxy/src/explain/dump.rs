//! A configuration in JSON: as Envoy's `/config_dump` shows it, or as pilot's `/debug/config_dump` does.

use anyhow::{Context, bail};
use prost::Message;
use proto::envoy::cluster::Cluster;
pub(super) use proto::envoy::endpoint::ClusterLoadAssignment as Assignment;
use proto::envoy::listener::Listener;
use proto::envoy::route::RouteConfiguration;
use proto::missing::NameTable;
use serde_json::Value;

/// The resources of one proxy.
#[derive(Debug, Default)]
pub(super) struct Dump {
    /// Listeners.
    pub(super) listeners: Vec<Listener>,
    /// Route tables.
    pub(super) routes: Vec<RouteConfiguration>,
    /// Clusters.
    pub(super) clusters: Vec<Cluster>,
    /// Endpoints of clusters.
    pub(super) endpoints: Vec<Assignment>,
    /// Names of services, where the configuration has them.
    pub(super) names: NameTable,
    /// Id of the node, where the configuration says it.
    pub(super) node: Option<String>,
    /// What could not be read.
    pub(super) unread: Vec<String>,
}

impl Dump {
    /// Reads either form.
    ///
    /// # Errors
    /// It is no JSON, or neither of the two.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(text).context("the configuration is no JSON")?;
        let mut dump = Self::default();
        if let Some(configs) = value["configs"].as_array() {
            configs.iter().for_each(|config| dump.envoys(config));
        } else if value["LDS"].is_array() || value["CDS"].is_array() {
            dump.pilots(&value);
        } else {
            bail!(
                "the configuration is neither the output of /config_dump (`configs`) nor of pilot's /debug/config_dump (`LDS`, `CDS`)"
            );
        }
        Ok(dump)
    }

    fn pilots(&mut self, value: &Value) {
        for kind in ["CDS", "LDS", "RDS", "EDS", "NDS"] {
            for item in value[kind].as_array().into_iter().flatten() {
                let resource = &item["resource"];
                match kind {
                    "CDS" => self.cluster(resource),
                    "LDS" => self.listener(resource),
                    "RDS" => self.route(resource),
                    "EDS" => self.endpoint(resource),
                    _ => self.name_table(resource),
                }
            }
        }
    }

    /// One part of Envoy's dump, told by its type.
    fn envoys(&mut self, config: &Value) {
        let items = |name: &str| config[name].as_array().cloned().unwrap_or_default();
        let kind = config["@type"].as_str().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        match kind {
            "BootstrapConfigDump" => self.node = config["bootstrap"]["node"]["id"].as_str().map(str::to_owned),
            "ClustersConfigDump" => {
                let all = [items("static_clusters"), items("dynamic_active_clusters")].concat();
                all.iter().for_each(|item| self.cluster(&item["cluster"]));
            }
            "ListenersConfigDump" => {
                items("static_listeners").iter().for_each(|item| self.listener(&item["listener"]));
                items("dynamic_listeners").iter().for_each(|item| self.listener(&item["active_state"]["listener"]));
            }
            "RoutesConfigDump" => {
                // Tables that stand in a listener are read there.
                items("dynamic_route_configs").iter().for_each(|item| self.route(&item["route_config"]));
            }
            "EndpointsConfigDump" => {
                let all = [items("static_endpoint_configs"), items("dynamic_endpoint_configs")].concat();
                all.iter().for_each(|item| self.endpoint(&item["endpoint_config"]));
            }
            _ => {}
        }
    }

    fn cluster(&mut self, value: &Value) {
        let read = self.read("envoy.config.cluster.v3.Cluster", value);
        self.clusters.extend(read);
    }

    fn listener(&mut self, value: &Value) {
        let read = self.read("envoy.config.listener.v3.Listener", value);
        self.listeners.extend(read);
    }

    fn route(&mut self, value: &Value) {
        let read = self.read("envoy.config.route.v3.RouteConfiguration", value);
        self.routes.extend(read);
    }

    fn endpoint(&mut self, value: &Value) {
        let read = self.read("envoy.config.endpoint.v3.ClusterLoadAssignment", value);
        self.endpoints.extend(read);
    }

    fn name_table(&mut self, value: &Value) {
        let read: Option<NameTable> = self.read("istio.networking.nds.v1.NameTable", value);
        self.names.table.extend(read.into_iter().flat_map(|table| table.table));
    }

    fn read<M: Message + Default>(&mut self, full_name: &str, value: &Value) -> Option<M> {
        let mut value = value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("@type");
        }
        let decoded = proto::json::from_value(full_name, &value).map_err(|error| error.to_string());
        match decoded.and_then(|bytes| M::decode(bytes.as_slice()).map_err(|error| error.to_string())) {
            Ok(message) => Some(message),
            Err(error) => {
                let name = value["name"].as_str().or_else(|| value["cluster_name"].as_str()).unwrap_or("?");
                self.unread.push(format!("{full_name} {name}: {error}"));
                None
            }
        }
    }
}
