use super::*;
use clap::Parser;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    redirect: RedirectArgs,
}

fn args(flags: &[&str]) -> RedirectArgs {
    Flags::try_parse_from(std::iter::once(&"redirect").chain(flags)).unwrap().redirect
}

fn v4(flags: &[&str]) -> String {
    plan(&args(flags)).unwrap().v4
}

/// Rules of one chain, in order.
fn chain<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let prefix = format!("-A {name} ");
    text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

// spec: PI-59, IP-11
#[test]
fn injections_command_line_is_taken_empty_lists_too() {
    let line = ["-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*"];
    let rest = ["-d", "15090,15021,15020", "-q", "", "-o", "", "--log_output_level=default:info", "--force-apply"];
    assert_eq!(v4(&[&line[..], &rest].concat()), v4(&[]));
    assert_eq!(args(&["-x", "10.0.0.0/8, 1.2.3.4/32"]).outbound_ranges_exclude.len(), 2);
    assert!(Flags::try_parse_from(["redirect", "-o", "80,x"]).is_err());
}

// spec: IP-1, IP-2, IP-3, IP-4, IP-5, IP-7, IP-9, PT-12, PT-13
#[test]
fn the_defaults_are_those_of_istio() {
    let expected = "*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_REDIRECT - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
";
    let plan = plan(&args(&[])).unwrap();
    assert_eq!(plan.v4, expected);
    let v6 = expected.replace("127.0.0.6/32", "::6/128").replace("127.0.0.1/32", "::1/128");
    assert_eq!(plan.v6, Some(v6));
    assert!(plan.routes.is_empty());
}

// spec: IP-2, IP-11
#[test]
fn listed_inbound_ports_are_redirected_and_no_others() {
    let text = v4(&["-b", "80,8080"]);
    assert_eq!(
        chain(&text, "ISTIO_INBOUND"),
        [
            "-p tcp --dport 15008 -j RETURN",
            "-p tcp --dport 80 -j ISTIO_IN_REDIRECT",
            "-p tcp --dport 8080 -j ISTIO_IN_REDIRECT"
        ]
    );
    assert!(chain(&v4(&["-b", ""]), "PREROUTING").is_empty());
    let ports = v4(&["-p", "1", "-z", "2", "-e", "3"]);
    assert_eq!(chain(&ports, "ISTIO_REDIRECT"), ["-p tcp -j REDIRECT --to-ports 1"]);
    assert_eq!(chain(&ports, "ISTIO_IN_REDIRECT"), ["-p tcp -j REDIRECT --to-ports 2"]);
    assert_eq!(chain(&ports, "ISTIO_INBOUND")[0], "-p tcp --dport 3 -j RETURN");
}

// spec: IP-7, IP-11
#[test]
fn outbound_ranges_and_ports_come_in_the_order_of_istio() {
    let flags =
        ["-i", "10.0.0.0/8,fd00::/8", "-x", "10.9.0.0/16,fd09::/16", "-q", "443", "-o", "25,26", "-u", "0", "-g", "7"];
    let plan = plan(&args(&flags)).unwrap();
    assert_eq!(
        chain(&plan.v4, "ISTIO_OUTPUT"),
        [
            "-p tcp --dport 25 -j RETURN",
            "-p tcp --dport 26 -j RETURN",
            "-o lo -s 127.0.0.6/32 -j RETURN",
            "-o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 0 -j ISTIO_IN_REDIRECT",
            "-o lo -m owner ! --uid-owner 0 -j RETURN",
            "-m owner --uid-owner 0 -j RETURN",
            "-o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 7 -j ISTIO_IN_REDIRECT",
            "-o lo -m owner ! --gid-owner 7 -j RETURN",
            "-m owner --gid-owner 7 -j RETURN",
            "-d 127.0.0.1/32 -j RETURN",
            "-d 10.9.0.0/16 -j RETURN",
            "-p tcp --dport 443 -j ISTIO_REDIRECT",
            "-d 10.0.0.0/8 -j ISTIO_REDIRECT",
            "-j RETURN",
        ]
    );
    let v6 = plan.v6.unwrap();
    let ranges: Vec<_> = chain(&v6, "ISTIO_OUTPUT").into_iter().filter(|rule| rule.starts_with("-d fd")).collect();
    assert_eq!(ranges, ["-d fd09::/16 -j RETURN", "-d fd00::/8 -j ISTIO_REDIRECT"]);
}

// spec: IP-6
#[test]
fn dns_goes_to_the_proxy_in_zones_of_its_own() {
    let text = v4(&["--redirect-dns"]);
    assert_eq!(
        chain(&text, "ISTIO_OUTPUT_DNS"),
        [
            "-p udp --dport 53 -m owner --uid-owner 1337 -j RETURN",
            "-p udp --dport 53 -m owner --gid-owner 1337 -j RETURN",
            "-p udp --dport 53 -j REDIRECT --to-ports 15053",
        ]
    );
    let output = chain(&text, "ISTIO_OUTPUT");
    assert!(output.contains(&"-o lo -p tcp ! --dport 53 -m owner ! --uid-owner 1337 -j RETURN"));
    assert!(output.contains(&"-p tcp --dport 53 -j REDIRECT --to-ports 15053"));
    let raw: Vec<_> = text.lines().take_while(|line| *line != "COMMIT").collect();
    assert_eq!(
        raw,
        [
            "*raw",
            "-A OUTPUT -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1",
            "-A OUTPUT -p udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2",
            "-A OUTPUT -p udp --dport 53 -m owner --gid-owner 1337 -j CT --zone 1",
            "-A OUTPUT -p udp --sport 15053 -m owner --gid-owner 1337 -j CT --zone 2",
            "-A OUTPUT -p udp --dport 53 -j CT --zone 2",
            "-A PREROUTING -p udp --sport 53 -j CT --zone 1",
        ]
    );
}

// spec: IP-6
#[test]
fn without_capture_all_only_the_configured_servers_are_redirected() {
    let flags = ["--redirect-dns", "--capture-all-dns=false", "--dns-servers", "10.0.0.10,fd00::10"];
    let plan = plan(&args(&flags)).unwrap();
    for (text, server) in [(&plan.v4, "10.0.0.10/32"), (plan.v6.as_ref().unwrap(), "fd00::10/128")] {
        let udp = format!("-p udp --dport 53 -d {server} -j REDIRECT --to-ports 15053");
        assert_eq!(chain(text, "ISTIO_OUTPUT_DNS").last(), Some(&udp.as_str()));
        assert!(text.contains(&format!("-A PREROUTING -p udp --sport 53 -s {server} -j CT --zone 1")));
        assert!(text.contains(&format!("-A ISTIO_OUTPUT -p tcp --dport 53 -d {server} -j REDIRECT")));
    }
}

// spec: IP-1
#[test]
fn transparent_proxying_uses_mangle_and_policy_routing() {
    let plan = plan(&args(&["-m", "TPROXY", "--drop-invalid"])).unwrap();
    let expected = "*mangle
:ISTIO_DIVERT - [0:0]
:ISTIO_TPROXY - [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_DROP - [0:0]
-A ISTIO_DIVERT -j MARK --set-mark 1337
-A ISTIO_DIVERT -j ACCEPT
-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY
-A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP
-A ISTIO_DROP -j DROP
COMMIT
";
    assert!(plan.v4.starts_with(expected), "{}", plan.v4);
    assert_eq!(plan.routes[0].join(" "), "-4 rule add fwmark 1337 lookup 133");
    assert_eq!(plan.routes[3].join(" "), "-6 route add local default dev lo table 133");
}

#[test]
fn a_mark_tells_the_proxy_where_everybody_is_one_user() {
    let text = v4(&["--proxy-mark", "1337", "--redirect-dns"]);
    let output = chain(&text, "ISTIO_OUTPUT");
    let own = [
        "-o lo -s 127.0.0.6/32 -j RETURN",
        "-o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m mark --mark 0x539 -j ISTIO_IN_REDIRECT",
        "-o lo -p tcp ! --dport 53 -m mark ! --mark 0x539 -j RETURN",
        "-m mark --mark 0x539 -j RETURN",
    ];
    assert_eq!(output[..4], own);
    assert_eq!(chain(&text, "ISTIO_OUTPUT_DNS")[0], "-p udp --dport 53 -m mark --mark 0x539 -j RETURN");
    assert!(text.contains("-A OUTPUT -p udp --sport 15053 -j CT --zone 2") && !text.contains("owner"), "{text}");
}

// spec: IP-11
#[test]
fn interfaces_and_groups_are_exempt() {
    let flags = ["-c", "eth1", "-k", "vnet0", "-x", "10.9.0.0/16"];
    let text =
        v4(&[&flags[..], &["--outbound-owner-groups", "101,java", "--outbound-owner-groups-exclude", "root"]].concat());
    assert_eq!(
        chain(&text, "PREROUTING"),
        [
            "-i eth1 -j RETURN",
            "-i vnet0 -d 10.9.0.0/16 -j RETURN",
            "-i vnet0 -p tcp -j ISTIO_REDIRECT",
            "-p tcp -j ISTIO_INBOUND"
        ]
    );
    assert_eq!(chain(&text, "OUTPUT")[0], "-o eth1 -j RETURN");
    let output = chain(&text, "ISTIO_OUTPUT");
    assert!(output.contains(&"-m owner --gid-owner root -j RETURN"));
    assert!(output.contains(&"-m owner ! --gid-owner 101 -m owner ! --gid-owner java -j RETURN"));
    let listed = v4(&["-k", "vnet0", "-i", "10.0.0.0/8"]);
    assert_eq!(
        chain(&listed, "PREROUTING")[..2],
        ["-i vnet0 -p tcp -d 10.0.0.0/8 -j ISTIO_REDIRECT", "-i vnet0 -j RETURN"]
    );
}

#[test]
fn names_cannot_smuggle_rules() {
    for bad in ["eth0\n-A OUTPUT -j DROP", "eth0 -j", "-j", "e;x"] {
        let mut args = args(&[]);
        args.exclude_interfaces = vec![bad.to_owned()];
        assert!(plan(&args).is_err(), "{bad}");
    }
}

// spec: AN-1
#[test]
fn annotations_say_what_the_flags_say() {
    let with = |pairs: &[(&str, &str)]| {
        let annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        args(&[]).with_annotations(&annotations)
    };
    let found = with(&[
        ("traffic.sidecar.istio.io/includeInboundPorts", "80, 8080"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "9000"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "443"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "25"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.9.0.0/16,fd00::/8"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth1"),
        ("traffic.sidecar.istio.io/kubevirtInterfaces", "vnet0"),
        ("sidecar.istio.io/inject", "true"),
    ])
    .unwrap();
    let flags = ["-b", "80,8080", "-d", "15090,15021,15020,9000", "-q", "443", "-o", "25", "-i", "10.0.0.0/8"];
    assert_eq!(found, args(&[&flags[..], &["-x", "10.9.0.0/16,fd00::/8", "-c", "eth1", "-k", "vnet0"]].concat()));
    let virtual_only = with(&[("istio.io/reroute-virtual-interfaces", "vnet1,vnet2")]).unwrap();
    assert_eq!(virtual_only.virtual_interfaces, ["vnet1", "vnet2"]);
    let error = with(&[("traffic.sidecar.istio.io/excludeOutboundPorts", "http")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "traffic.sidecar.istio.io/excludeOutboundPorts: \"http\" is no list of ports, such as 80,443"
    );
}
