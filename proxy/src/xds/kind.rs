//! The kinds of resource that the proxy asks for.

use proto::type_url;

/// A kind of xDS resource, in the order in which they are made before they are broken (spec XD-10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS
    Cluster,
    /// EDS
    Endpoint,
    /// SDS
    Secret,
    /// LDS
    Listener,
    /// RDS
    Route,
    /// VHDS
    VirtualHost,
    /// ECDS
    ExtensionConfig,
    /// Istio's DNS name table
    NameTable,
    /// Istio's proxy configuration
    ProxyConfig,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 9] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Secret,
        Self::Listener,
        Self::Route,
        Self::VirtualHost,
        Self::ExtensionConfig,
        Self::NameTable,
        Self::ProxyConfig,
    ];

    /// The type URL of its messages.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoint => type_url::ENDPOINT,
            Self::Secret => type_url::SECRET,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE,
            Self::VirtualHost => type_url::VIRTUAL_HOST,
            Self::ExtensionConfig => type_url::EXTENSION_CONFIG,
            Self::NameTable => type_url::NAME_TABLE,
            Self::ProxyConfig => type_url::PROXY_CONFIG,
        }
    }

    /// The kind of a type URL.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// The short name that people use (`CDS`).
    pub fn short_name(self) -> &'static str {
        type_url::short_name(self.type_url())
    }

    /// How NACKs of Envoy call a resource of this kind.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoint => "endpoint",
            Self::Secret => "secret",
            Self::Listener => "listener",
            Self::Route => "route",
            Self::VirtualHost => "virtual host",
            Self::ExtensionConfig => "extension config",
            Self::NameTable => "name table",
            Self::ProxyConfig => "proxy config",
        }
    }

    /// Whether a server of the state-of-the-world protocol means "gone" by leaving a resource out (spec XD-9).
    pub(super) fn is_whole_in_sotw(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: XD-1
    #[test]
    fn type_urls_are_those_of_the_protocol() {
        let expected = [
            "envoy.config.cluster.v3.Cluster",
            "envoy.config.endpoint.v3.ClusterLoadAssignment",
            "envoy.extensions.transport_sockets.tls.v3.Secret",
            "envoy.config.listener.v3.Listener",
            "envoy.config.route.v3.RouteConfiguration",
            "envoy.config.route.v3.VirtualHost",
            "envoy.config.core.v3.TypedExtensionConfig",
            "istio.networking.nds.v1.NameTable",
            "istio.mesh.v1alpha1.ProxyConfig",
        ];
        for (kind, name) in Kind::ALL.into_iter().zip(expected) {
            let url = format!("type.googleapis.com/{name}");
            assert_eq!(kind.type_url(), url);
            assert_eq!(Kind::of(&url), Some(kind));
        }
        assert_eq!(Kind::of("type.googleapis.com/other"), None);
    }
}
