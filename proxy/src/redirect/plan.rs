//! The plan: flags become the text of `iptables-restore` for both address families. Pure.

use super::args::{Mode, RedirectArgs, RedirectError, Selection};
use ipnet::IpNet;
use std::net::IpAddr;

/// Mark and routing table of transparent proxying (IP-8).
const TPROXY_MARK: u32 = 1337;
const TPROXY_TABLE: u32 = 133;

/// What is to be done, in the order in which it must be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Input of `iptables-restore --noflush`.
    pub v4: String,
    /// Input of `ip6tables-restore --noflush`; `None` where IPv6 is not wanted.
    pub v6: Option<String>,
    /// Arguments of `ip` that set up policy routing; only for transparent proxying.
    pub routes: Vec<Vec<String>>,
}

/// Makes the plan.
///
/// # Errors
/// [`RedirectError`] for an interface or group name that cannot stand in a rule.
pub fn plan(args: &RedirectArgs) -> Result<Plan, RedirectError> {
    args.check_names()?;
    let families: &[Family] = if args.ipv4_only { &[Family::V4] } else { &[Family::V4, Family::V6] };
    let routes =
        if args.mode == Mode::Tproxy { families.iter().flat_map(|f| f.routes()).collect() } else { Vec::new() };
    let v6 = (!args.ipv4_only).then(|| Rules::new(args, Family::V6).text());
    Ok(Plan { v4: Rules::new(args, Family::V4).text(), v6, routes })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn loopback(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.1/32",
            Self::V6 => "::1/128",
        }
    }

    /// Source of inbound passthrough connections (PT-13).
    fn passthrough(self) -> String {
        match self {
            Self::V4 => format!("{}/32", proto::wire::INBOUND_PASSTHROUGH_SOURCE),
            Self::V6 => format!("{}/128", proto::wire::INBOUND_PASSTHROUGH_SOURCE_V6),
        }
    }

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn routes(self) -> Vec<Vec<String>> {
        let flag = if self == Self::V4 { "-4" } else { "-6" };
        let rule = format!("{flag} rule add fwmark {TPROXY_MARK} lookup {TPROXY_TABLE}");
        let route = format!("{flag} route add local default dev lo table {TPROXY_TABLE}");
        [rule, route].iter().map(|text| text.split(' ').map(str::to_owned).collect()).collect()
    }
}

/// A match for what the proxy sends, and one for what others send.
struct Sender {
    is: String,
    other: String,
}

/// The rules of one family, table by table.
struct Rules<'a> {
    args: &'a RedirectArgs,
    family: Family,
    nat: Vec<String>,
    mangle: Vec<String>,
    raw: Vec<String>,
}

impl<'a> Rules<'a> {
    fn new(args: &'a RedirectArgs, family: Family) -> Self {
        let mut rules = Self { args, family, nat: Vec::new(), mangle: Vec::new(), raw: Vec::new() };
        rules.interfaces();
        rules.chains();
        rules.inbound();
        rules.outbound();
        if args.redirect_dns {
            rules.dns_zones();
        }
        if args.drop_invalid {
            rules.mangle.push("-A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP".into());
            rules.mangle.push("-A ISTIO_DROP -j DROP".into());
        }
        rules
    }

    /// The text of `iptables-restore`: each table with its own chains first.
    fn text(&self) -> String {
        let mut nat = vec!["ISTIO_INBOUND", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_OUTPUT"];
        if self.args.redirect_dns {
            nat.push("ISTIO_OUTPUT_DNS");
        }
        let mut mangle = Vec::new();
        if self.args.mode == Mode::Tproxy {
            mangle.extend(["ISTIO_DIVERT", "ISTIO_TPROXY", "ISTIO_INBOUND"]);
        }
        if self.args.drop_invalid {
            mangle.push("ISTIO_DROP");
        }
        let tables = [("raw", Vec::new(), &self.raw), ("mangle", mangle, &self.mangle), ("nat", nat, &self.nat)];
        let mut text = String::new();
        for (name, chains, rules) in tables {
            if rules.is_empty() {
                continue;
            }
            text.push_str(&format!("*{name}\n"));
            for chain in chains {
                text.push_str(&format!(":{chain} - [0:0]\n"));
            }
            for rule in rules {
                text.push_str(rule);
                text.push('\n');
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    fn nat(&mut self, rule: impl Into<String>) {
        self.nat.push(rule.into());
    }

    fn ranges<'b>(&self, ranges: &'b [IpNet]) -> impl Iterator<Item = &'b IpNet> + use<'b> {
        let family = self.family;
        ranges.iter().filter(move |range| family.has(range.addr()))
    }

    /// Excluded interfaces, then interfaces of virtual machines (before anything else sees their traffic).
    fn interfaces(&mut self) {
        let args = self.args;
        for interface in &args.exclude_interfaces {
            self.nat(format!("-A PREROUTING -i {interface} -j RETURN"));
            self.nat(format!("-A OUTPUT -o {interface} -j RETURN"));
            if args.mode == Mode::Tproxy {
                self.mangle.push(format!("-A PREROUTING -i {interface} -j RETURN"));
            }
        }
        for interface in &args.virtual_interfaces {
            for range in self.ranges(&args.outbound_ranges_exclude) {
                self.nat(format!("-A PREROUTING -i {interface} -d {range} -j RETURN"));
            }
            match &args.outbound_ranges {
                Selection::All => self.nat(format!("-A PREROUTING -i {interface} -p tcp -j ISTIO_REDIRECT")),
                Selection::Listed(ranges) => {
                    for range in self.ranges(ranges) {
                        self.nat(format!("-A PREROUTING -i {interface} -p tcp -d {range} -j ISTIO_REDIRECT"));
                    }
                    self.nat(format!("-A PREROUTING -i {interface} -j RETURN"));
                }
            }
        }
    }

    /// The two ends of every path (IP-1).
    fn chains(&mut self) {
        let args = self.args;
        self.nat(format!("-A ISTIO_INBOUND -p tcp --dport {} -j RETURN", args.tunnel_port));
        self.nat(format!("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {}", args.outbound_port));
        self.nat(format!("-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {}", args.inbound_port));
    }

    /// What comes from outside (IP-2); through mangle for transparent proxying.
    fn inbound(&mut self) {
        let args = self.args;
        if args.inbound_ports.listed().is_empty() && args.inbound_ports != Selection::All {
            return;
        }
        let (target, mut rules) = match args.mode {
            Mode::Redirect => ("ISTIO_IN_REDIRECT", Vec::new()),
            Mode::Tproxy => ("ISTIO_TPROXY", self.tproxy()),
        };
        rules.push("-A PREROUTING -p tcp -j ISTIO_INBOUND".to_owned());
        if args.mode == Mode::Tproxy {
            rules.push(format!("-A ISTIO_INBOUND -p tcp --dport {} -j RETURN", args.tunnel_port));
        }
        match &args.inbound_ports {
            Selection::All => {
                let excluded = &args.inbound_ports_exclude;
                rules.extend(excluded.iter().map(|port| format!("-A ISTIO_INBOUND -p tcp --dport {port} -j RETURN")));
                if args.mode == Mode::Tproxy {
                    rules.push(
                        "-A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT".into(),
                    );
                }
                rules.push(format!("-A ISTIO_INBOUND -p tcp -j {target}"));
            }
            Selection::Listed(ports) => {
                for port in ports {
                    if args.mode == Mode::Tproxy {
                        rules.push(format!(
                            "-A ISTIO_INBOUND -p tcp --dport {port} -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT"
                        ));
                    }
                    rules.push(format!("-A ISTIO_INBOUND -p tcp --dport {port} -j {target}"));
                }
            }
        }
        match args.mode {
            Mode::Redirect => self.nat.extend(rules),
            Mode::Tproxy => self.mangle.extend(rules),
        }
    }

    fn tproxy(&self) -> Vec<String> {
        let (loopback, port) = (self.family.loopback(), self.args.inbound_port);
        vec![
            format!("-A ISTIO_DIVERT -j MARK --set-mark {TPROXY_MARK}"),
            "-A ISTIO_DIVERT -j ACCEPT".to_owned(),
            format!(
                "-A ISTIO_TPROXY ! -d {loopback} -p tcp -j TPROXY --tproxy-mark {TPROXY_MARK}/0xffffffff --on-port {port}"
            ),
        ]
    }

    /// What the workload sends (IP-3…7).
    fn outbound(&mut self) {
        let args = self.args;
        if args.redirect_dns {
            self.dns_udp();
        }
        self.nat("-A OUTPUT -p tcp -j ISTIO_OUTPUT");
        for port in &args.outbound_ports_exclude {
            self.nat(format!("-A ISTIO_OUTPUT -p tcp --dport {port} -j RETURN"));
        }
        self.nat(format!("-A ISTIO_OUTPUT -o lo -s {} -j RETURN", self.family.passthrough()));
        for sender in self.senders() {
            self.sender(&sender);
        }
        self.owner_groups();
        if args.redirect_dns {
            for destination in self.dns_destinations() {
                self.nat(format!(
                    "-A ISTIO_OUTPUT -p tcp --dport 53{destination} -j REDIRECT --to-ports {}",
                    args.dns_port
                ));
            }
        }
        self.nat(format!("-A ISTIO_OUTPUT -d {} -j RETURN", self.family.loopback()));
        for range in self.ranges(&args.outbound_ranges_exclude) {
            self.nat(format!("-A ISTIO_OUTPUT -d {range} -j RETURN"));
        }
        for port in &args.outbound_ports {
            self.nat(format!("-A ISTIO_OUTPUT -p tcp --dport {port} -j ISTIO_REDIRECT"));
        }
        match &args.outbound_ranges {
            Selection::All => self.nat("-A ISTIO_OUTPUT -j ISTIO_REDIRECT"),
            Selection::Listed(ranges) => {
                for range in self.ranges(ranges) {
                    self.nat(format!("-A ISTIO_OUTPUT -d {range} -j ISTIO_REDIRECT"));
                }
                self.nat("-A ISTIO_OUTPUT -j RETURN");
            }
        }
    }

    /// Traffic of the proxy itself is left alone, but what it sends to its own pod passes the inbound port (IP-4, IP-5).
    fn sender(&mut self, Sender { is, other }: &Sender) {
        let (loopback, tunnel) = (self.family.loopback(), self.args.tunnel_port);
        // With DNS captured, a resolver on loopback must still be reachable for the redirection below.
        let except_dns = if self.args.redirect_dns { " -p tcp ! --dport 53" } else { "" };
        self.nat(format!("-A ISTIO_OUTPUT -o lo ! -d {loopback} -p tcp ! --dport {tunnel} {is} -j ISTIO_IN_REDIRECT"));
        self.nat(format!("-A ISTIO_OUTPUT -o lo{except_dns} {other} -j RETURN"));
        self.nat(format!("-A ISTIO_OUTPUT {is} -j RETURN"));
    }

    fn owner_groups(&mut self) {
        let args = self.args;
        for group in &args.outbound_owner_groups_exclude {
            self.nat(format!("-A ISTIO_OUTPUT -m owner --gid-owner {group} -j RETURN"));
        }
        if let Selection::Listed(groups) = &args.outbound_owner_groups {
            let others: String = groups.iter().map(|group| format!(" -m owner ! --gid-owner {group}")).collect();
            self.nat(format!("-A ISTIO_OUTPUT{others} -j RETURN"));
        }
    }

    /// Queries that are not the proxy's own go to its DNS server (IP-6).
    fn dns_udp(&mut self) {
        let args = self.args;
        self.nat("-A OUTPUT -p udp --dport 53 -j ISTIO_OUTPUT_DNS");
        for Sender { is, .. } in self.senders() {
            self.nat(format!("-A ISTIO_OUTPUT_DNS -p udp --dport 53 {is} -j RETURN"));
        }
        for destination in self.dns_destinations() {
            self.nat(format!(
                "-A ISTIO_OUTPUT_DNS -p udp --dport 53{destination} -j REDIRECT --to-ports {}",
                args.dns_port
            ));
        }
    }

    /// Two conntrack zones, so that the proxy's query and the application's, which may use the same ports, stay apart.
    fn dns_zones(&mut self) {
        for Sender { is, .. } in self.senders() {
            self.raw.push(format!("-A OUTPUT -p udp --dport 53 {is} -j CT --zone 1"));
            // What the proxy answers is not marked: only it sends from that port.
            let is = if self.args.proxy_mark.is_some() { String::new() } else { format!(" {is}") };
            self.raw.push(format!("-A OUTPUT -p udp --sport {}{is} -j CT --zone 2", self.args.dns_port));
        }
        let (to, from) = (self.dns_destinations(), self.dns_sources());
        self.raw.extend(to.iter().map(|d| format!("-A OUTPUT -p udp --dport 53{d} -j CT --zone 2")));
        self.raw.extend(from.iter().map(|s| format!("-A PREROUTING -p udp --sport 53{s} -j CT --zone 1")));
    }

    /// By what the proxy's own traffic is told.
    fn senders(&self) -> Vec<Sender> {
        if let Some(mark) = self.args.proxy_mark {
            return vec![Sender {
                is: format!("-m mark --mark {mark:#x}"),
                other: format!("-m mark ! --mark {mark:#x}"),
            }];
        }
        let uids = self.args.proxy_uids.iter().map(|uid| format!("--uid-owner {uid}"));
        let owners = uids.chain(self.args.proxy_gids.iter().map(|gid| format!("--gid-owner {gid}")));
        owners.map(|o| Sender { is: format!("-m owner {o}"), other: format!("-m owner ! {o}") }).collect()
    }

    fn dns_destinations(&self) -> Vec<String> {
        self.dns_servers(" -d")
    }

    fn dns_sources(&self) -> Vec<String> {
        self.dns_servers(" -s")
    }

    fn dns_servers(&self, flag: &str) -> Vec<String> {
        if self.args.capture_all_dns {
            return vec![String::new()];
        }
        let servers = self.args.dns_servers.iter().filter(|server| self.family.has(**server));
        servers.map(|server| format!("{flag} {}", IpNet::from(*server))).collect()
    }
}

#[cfg(test)]
mod tests;
