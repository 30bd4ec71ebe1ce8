//! What to redirect: the flags of `istio-iptables` (IP-11) and the annotations of a pod (AN-1).

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

/// Annotations of a pod by name.
pub type Annotations = BTreeMap<String, String>;

/// What every annotation of this kind begins with (AN-1).
const ANNOTATION_PREFIX: &str = "traffic.sidecar.istio.io/";
/// Newer name of `kubevirtInterfaces`.
const ANNOTATION_VIRTUAL: &str = "istio.io/reroute-virtual-interfaces";

/// A flag or an annotation with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {value:?} is no {expected}")]
pub struct RedirectError {
    /// The flag or annotation.
    pub name: Box<str>,
    /// What it says.
    pub value: Box<str>,
    /// What it should be.
    pub expected: &'static str,
}

/// Everything, or what is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<T> {
    /// `*`.
    All,
    /// The listed ones; none where the list is empty.
    Listed(Vec<T>),
}

/// A list that is one argument, and may be empty, as Istio's injection writes it: `-x ""`. Under its own name, for clap
/// takes a `Vec` as an argument that may be repeated.
type List<T> = Vec<T>;

fn items<T: FromStr>(text: &str) -> Result<Vec<T>, String> {
    list(text).ok_or_else(|| format!("{text:?} is no list with commas of what is wanted here"))
}

/// Ports to select.
pub type Ports = Selection<u16>;

impl<T: FromStr> FromStr for Selection<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let parsed = items.map(|item| item.parse().map_err(|_| format!("{item:?} is not acceptable here")));
        parsed.collect::<Result<_, _>>().map(Self::Listed)
    }
}

impl<T> Selection<T> {
    /// The listed items; none for [`Selection::All`].
    pub fn listed(&self) -> &[T] {
        match self {
            Self::All => &[],
            Self::Listed(items) => items,
        }
    }
}

/// How inbound traffic reaches the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// NAT to the inbound port; the source address is the proxy's for the application.
    #[value(name = "REDIRECT")]
    Redirect,
    /// Transparent proxying; needs CAP_NET_ADMIN in the proxy.
    #[value(name = "TPROXY")]
    Tproxy,
}

/// `proxy redirect`, with the flags of `istio-iptables`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RedirectArgs {
    /// Port to which outbound TCP traffic goes.
    #[arg(short = 'p', long = "envoy-port", default_value_t = proto::wire::PORT_OUTBOUND)]
    pub outbound_port: u16,
    /// Port to which inbound TCP traffic goes.
    #[arg(short = 'z', long = "inbound-capture-port", default_value_t = proto::wire::PORT_INBOUND)]
    pub inbound_port: u16,
    /// Port of tunnelled traffic (HBONE), which is never redirected.
    #[arg(short = 'e', long = "inbound-tunnel-port", default_value_t = proto::wire::PORT_HBONE)]
    pub tunnel_port: u16,
    /// User ids whose traffic is not redirected: the proxy's.
    #[arg(short = 'u', long = "proxy-uid", value_delimiter = ',', default_value = "1337")]
    pub proxy_uids: Vec<u32>,
    /// Group ids whose traffic is not redirected.
    #[arg(short = 'g', long = "proxy-gid", value_delimiter = ',', default_value = "1337")]
    pub proxy_gids: Vec<u32>,
    /// How inbound traffic is taken.
    #[arg(short = 'm', long = "istio-inbound-interception-mode", value_enum, default_value_t = Mode::Redirect)]
    pub mode: Mode,
    /// Inbound ports to redirect: `*`, a list, or nothing.
    #[arg(short = 'b', long = "istio-inbound-ports", default_value = "*")]
    pub inbound_ports: Ports,
    /// Inbound ports that are not redirected; only applies to `*`.
    #[arg(short = 'd', long = "istio-local-exclude-ports", value_parser = items::<u16>, default_value = "15090,15021,15020")]
    pub inbound_ports_exclude: List<u16>,
    /// Destination ranges to redirect: `*`, a list of CIDRs, or nothing.
    #[arg(short = 'i', long = "istio-service-cidr", default_value = "*")]
    pub outbound_ranges: Selection<IpNet>,
    /// Destination ranges that are not redirected.
    #[arg(short = 'x', long = "istio-service-exclude-cidr", value_parser = items::<IpNet>, default_value = "", hide_default_value = true)]
    pub outbound_ranges_exclude: List<IpNet>,
    /// Outbound ports to redirect whatever the destination is.
    #[arg(short = 'q', long = "istio-outbound-ports", value_parser = items::<u16>, default_value = "", hide_default_value = true)]
    pub outbound_ports: List<u16>,
    /// Outbound ports that are not redirected.
    #[arg(short = 'o', long = "istio-local-outbound-ports-exclude", value_parser = items::<u16>, default_value = "", hide_default_value = true)]
    pub outbound_ports_exclude: List<u16>,
    /// Interfaces whose traffic is left alone.
    #[arg(short = 'c', long = "istio-exclude-interfaces", value_parser = items::<String>, default_value = "", hide_default_value = true)]
    pub exclude_interfaces: List<String>,
    /// Interfaces of virtual machines, whose inbound traffic is treated as outbound.
    #[arg(short = 'k', long = "kube-virt-interfaces", value_parser = items::<String>, default_value = "", hide_default_value = true)]
    pub virtual_interfaces: List<String>,
    /// Groups whose outbound traffic is redirected: `*` or a list.
    #[arg(long, env = "ISTIO_OUTBOUND_OWNER_GROUPS", default_value = "*")]
    pub outbound_owner_groups: Selection<String>,
    /// Groups whose outbound traffic is not redirected.
    #[arg(long, env = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", value_parser = items::<String>, default_value = "", hide_default_value = true)]
    pub outbound_owner_groups_exclude: List<String>,
    /// Redirect DNS to the proxy.
    #[arg(long, env = "ISTIO_META_DNS_CAPTURE")]
    pub redirect_dns: bool,
    /// With DNS: every server, not only those in /etc/resolv.conf.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub capture_all_dns: bool,
    /// Port of the proxy's DNS server.
    #[arg(long, default_value_t = proto::wire::PORT_DNS)]
    pub dns_port: u16,
    /// Servers whose DNS traffic is redirected when not all is; read from /etc/resolv.conf where none is given.
    #[arg(long, value_delimiter = ',')]
    pub dns_servers: Vec<IpAddr>,
    /// Drop packets that connection tracking calls invalid.
    #[arg(long, env = "INVALID_DROP")]
    pub drop_invalid: bool,
    /// Firewall mark of the proxy's own traffic, where its user does not tell it; instead of users and groups.
    #[arg(long)]
    pub proxy_mark: Option<u32>,
    /// Write no IPv6 rules.
    #[arg(long)]
    pub ipv4_only: bool,
    /// Accepted for Istio's sake: applying the rules twice is once
    #[arg(long, hide = true)]
    pub force_apply: bool,
    /// Accepted for Istio's sake
    #[arg(long = "log_output_level", value_name = "LEVELS", hide = true)]
    pub log_output_level: Option<String>,
    /// Accepted for Istio's sake
    #[arg(long = "log_as_json", hide = true)]
    pub log_as_json: bool,
    /// Accepted for Istio's sake: the system's iptables writes to nftables
    #[arg(long, hide = true)]
    pub native_nftables: bool,
    /// Set no rules.
    #[arg(long)]
    pub skip_rule_apply: bool,
    /// Wait until traffic is redirected, and fail with exit code 126 when it is not within a minute.
    #[arg(long)]
    pub run_validation: bool,
    /// Print the rules and change nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Remove the rules instead of setting them.
    #[arg(long)]
    pub cleanup: bool,
}

impl RedirectArgs {
    /// Takes over what the annotations of a pod say (AN-1); annotations of other kinds are passed over.
    ///
    /// # Errors
    /// [`RedirectError`] names the annotation whose value cannot be used.
    pub fn with_annotations(mut self, annotations: &Annotations) -> Result<Self, RedirectError> {
        for (name, value) in annotations {
            if name == ANNOTATION_VIRTUAL {
                self.virtual_interfaces = names(value);
            }
            let Some(key) = name.strip_prefix(ANNOTATION_PREFIX) else { continue };
            let bad = |expected| RedirectError { name: name.as_str().into(), value: value.as_str().into(), expected };
            let ports = || list(value).ok_or_else(|| bad("list of ports, such as 80,443"));
            let ranges = || list(value).ok_or_else(|| bad("list of CIDRs, such as 10.0.0.0/8"));
            match key {
                "includeInboundPorts" => {
                    self.inbound_ports = value.parse().map_err(|_| bad("\"*\" or list of ports, such as 80,443"))?;
                }
                "excludeInboundPorts" => self.inbound_ports_exclude.extend(ports()?),
                "includeOutboundPorts" => self.outbound_ports = ports()?,
                "excludeOutboundPorts" => self.outbound_ports_exclude = ports()?,
                "includeOutboundIPRanges" => {
                    let parsed = value.parse().map_err(|_| bad("\"*\" or list of CIDRs, such as 10.0.0.0/8"));
                    self.outbound_ranges = parsed?;
                }
                "excludeOutboundIPRanges" => self.outbound_ranges_exclude = ranges()?,
                "excludeInterfaces" => self.exclude_interfaces = names(value),
                "kubevirtInterfaces" => self.virtual_interfaces = names(value),
                _ => {}
            }
        }
        Ok(self)
    }

    /// Interface and group names go into rule text: nothing but plain names may get there.
    pub(super) fn check_names(&self) -> Result<(), RedirectError> {
        let groups = self.outbound_owner_groups.listed().iter().chain(&self.outbound_owner_groups_exclude);
        let interfaces = self.exclude_interfaces.iter().chain(&self.virtual_interfaces);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'@');
        for (kind, name) in groups.map(|g| ("group", g)).chain(interfaces.map(|i| ("interface", i))) {
            if name.is_empty() || name.starts_with('-') || !name.bytes().all(plain) {
                let expected = "plain name of letters, digits, '-', '_', '.', '@' and '+'";
                return Err(RedirectError { name: kind.into(), value: name.as_str().into(), expected });
            }
        }
        Ok(())
    }
}

fn list<T: FromStr>(value: &str) -> Option<Vec<T>> {
    let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.parse().ok()).collect()
}

fn names(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}
