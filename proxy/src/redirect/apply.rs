//! Applies a plan with the system's own tools, in the network namespace of the calling thread.

use super::args::{RedirectArgs, RedirectError};
use super::plan::{Plan, plan};
use super::prove::prove;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// Why rules were not set.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A flag cannot be used.
    #[error(transparent)]
    Flag(#[from] RedirectError),
    /// A tool is missing or cannot be started.
    #[error("cannot run {tool}: {source}; install the package {package}")]
    Tool {
        /// Which tool.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tool refused.
    #[error("{tool} failed: {message} (root or CAP_NET_ADMIN is needed)")]
    Refused {
        /// Which tool.
        tool: &'static str,
        /// What it said.
        message: String,
    },
    /// The rules are not there, or do not what they should.
    #[error("{0}")]
    Unproven(String),
    /// The plan cannot be printed.
    #[error("cannot print the plan: {0}")]
    Print(std::io::Error),
}

/// `proxy redirect`.
///
/// # Errors
/// [`ApplyError`] names the tool and what it said.
pub fn run(mut args: RedirectArgs) -> Result<(), ApplyError> {
    if args.redirect_dns && !args.capture_all_dns && args.dns_servers.is_empty() {
        args.dns_servers = name_servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    }
    let plan = plan(&args)?;
    if args.dry_run {
        let v6 = plan.v6.iter().map(|text| format!("# ip6tables-restore --noflush\n{text}"));
        let routes = plan.routes.iter().map(|route| format!("# ip {}\n", route.join(" ")));
        let text: String =
            std::iter::once(format!("# iptables-restore --noflush\n{}", plan.v4)).chain(v6).chain(routes).collect();
        return std::io::stdout().write_all(text.as_bytes()).map_err(ApplyError::Print);
    }
    if args.cleanup {
        return cleanup(&plan);
    }
    if !args.skip_rule_apply {
        apply(&plan)?;
    }
    if args.run_validation { prove(&args).map_err(ApplyError::Unproven) } else { Ok(()) }
}

/// Whether rules of ours are set.
///
/// # Errors
/// [`ApplyError::Tool`] where iptables is not installed.
pub fn is_applied() -> Result<bool, ApplyError> {
    Ok(tool("iptables-save", "iptables", &["-t", "nat"], "")?.contains(":ISTIO_"))
}

/// Sets the rules. Rules of an earlier run are replaced, so it may run again.
///
/// # Errors
/// [`ApplyError`] names the tool and what it said; then no rule of the failing family is set.
pub fn apply(plan: &Plan) -> Result<(), ApplyError> {
    cleanup(plan)?;
    restore("iptables-restore", &plan.v4)?;
    if let Some(v6) = &plan.v6 {
        restore("ip6tables-restore", v6)?;
    }
    for route in &plan.routes {
        tool("ip", "iproute2", &route.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
    }
    if plan.v6.is_some()
        && let Err(error) = source_address("add")
    {
        // Where the kernel has IPv6 switched off, nothing arrives that would need it.
        tracing::warn!("IPv6 traffic cannot reach the workload: {error}");
    }
    Ok(())
}

/// Adds or removes the address from which the proxy reaches its workload over IPv6 (PT-13); the one of IPv4 is there
/// anyway, as all of 127.0.0.0/8.
fn source_address(verb: &str) -> Result<String, ApplyError> {
    let address = format!("{}/128", proto::wire::INBOUND_PASSTHROUGH_SOURCE_V6);
    // Nobody else can have it: without the search for one it is there at once.
    tool("ip", "iproute2", &["-6", "addr", verb, &address, "dev", "lo", "nodad"], "")
}

/// Removes the rules of `plan`, and whatever leads to a chain of ours.
///
/// # Errors
/// [`ApplyError::Tool`] where iptables is not installed.
pub fn cleanup(plan: &Plan) -> Result<(), ApplyError> {
    for route in plan.routes.iter().rev() {
        let undo: Vec<&str> = route.iter().map(|word| if word == "add" { "del" } else { word }).collect();
        drop(tool("ip", "iproute2", &undo, "")); // not there: nothing to remove
    }
    remove("iptables-save", "iptables-restore", &plan.v4)?;
    if let Some(v6) = &plan.v6 {
        drop(source_address("del")); // not there: nothing to remove
        remove("ip6tables-save", "ip6tables-restore", v6)?;
    }
    Ok(())
}

fn remove(save: &'static str, restore_tool: &'static str, planned: &str) -> Result<(), ApplyError> {
    let Ok(saved) = tool(save, "iptables", &[], "") else { return Ok(()) };
    let text = removal(&saved, planned);
    if text.is_empty() { Ok(()) } else { restore(restore_tool, &text) }
}

/// The text that takes out of `saved` the rules of `planned` in built-in chains, all jumps to our chains, and the
/// chains themselves.
fn removal(saved: &str, planned: &str) -> String {
    let planned_rules = |table: &str| -> Vec<String> {
        let mut current = "";
        let mut rules = Vec::new();
        for line in planned.lines() {
            current = line.strip_prefix('*').unwrap_or(current);
            if current == table && line.starts_with("-A ") && !line.starts_with("-A ISTIO_") {
                rules.push(words(line));
            }
        }
        rules
    };
    let mut text = String::new();
    let (mut table, mut deletions, mut chains) = (String::new(), Vec::new(), Vec::new());
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if let Some(chain) = line.strip_prefix(":ISTIO_").and_then(|rest| rest.split(' ').next()) {
            chains.push(format!("ISTIO_{chain}"));
        } else if let Some(rule) = line.strip_prefix("-A ").filter(|rule| !rule.starts_with("ISTIO_")) {
            if rule.contains("-j ISTIO_") || planned_rules(&table).contains(&words(line)) {
                deletions.push(format!("-D {rule}\n"));
            }
        } else if line == "COMMIT" && !(deletions.is_empty() && chains.is_empty()) {
            text.push_str(&format!("*{table}\n{}", deletions.concat()));
            text.extend(chains.iter().map(|chain| format!("-F {chain}\n")));
            text.extend(chains.iter().map(|chain| format!("-X {chain}\n")));
            text.push_str("COMMIT\n");
            deletions.clear();
            chains.clear();
        }
    }
    text
}

/// A rule in a form in which what we wrote and what the kernel lists compare equal: word order aside, without `-m udp`.
fn words(rule: &str) -> String {
    let mut words: Vec<&str> = rule.split_whitespace().filter(|w| !matches!(*w, "-m" | "udp" | "tcp")).collect();
    words.sort_unstable();
    words.join(" ")
}

fn restore(name: &'static str, text: &str) -> Result<(), ApplyError> {
    tool(name, "iptables", &["--noflush", "--wait", "30"], text).map(drop)
}

/// Runs a tool with `input`; gives what it printed.
fn tool(name: &'static str, package: &'static str, args: &[&str], input: &str) -> Result<String, ApplyError> {
    let missing = |source| ApplyError::Tool { tool: name, package, source };
    let mut command = Command::new(name);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(missing)?;
    }
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(ApplyError::Refused { tool: name, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// The servers of a resolv.conf.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|rest| rest.trim().split('%').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_name_servers() {
        let text = "# x\nsearch a b\nnameserver 10.0.0.10\n nameserver fe80::1%eth0\nnameserver bad\n";
        assert_eq!(name_servers(text), ["10.0.0.10".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }

    #[test]
    fn removes_its_own_rules_and_nothing_else() {
        let saved = "*raw\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p udp -m udp --dport 53 -j CT --zone 2\n-A OUTPUT -j LOG\nCOMMIT\n\
                     *nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_INBOUND - [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -j DOCKER\n\
                     -A PREROUTING -p tcp -j ISTIO_INBOUND\n-A ISTIO_INBOUND -p tcp -j RETURN\nCOMMIT\n";
        let planned = "*raw\n-A OUTPUT -p udp --dport 53 -j CT --zone 2\nCOMMIT\n*nat\n-A PREROUTING -p tcp -j ISTIO_INBOUND\nCOMMIT\n";
        assert_eq!(
            removal(saved, planned),
            "*raw\n-D OUTPUT -p udp -m udp --dport 53 -j CT --zone 2\nCOMMIT\n\
             *nat\n-D PREROUTING -p tcp -j ISTIO_INBOUND\n-F ISTIO_INBOUND\n-X ISTIO_INBOUND\nCOMMIT\n"
        );
        assert_eq!(removal("*nat\n-A PREROUTING -j DOCKER\nCOMMIT\n", planned), "");
    }
}
