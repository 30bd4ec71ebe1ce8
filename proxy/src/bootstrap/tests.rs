use super::*;
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

/// Flags of a command line without the program's name.
pub(super) fn flags(arguments: &[&str]) -> Flags {
    let line = std::iter::once("proxy").chain(arguments.iter().copied());
    Cli::try_parse_from(line).unwrap().flags
}

fn check(yaml: &str, arguments: &[&str]) -> Result<Bootstrap, BootstrapError> {
    let mut bytes = Vec::new();
    convert(&JsonArgs { direction: Direction::Encode, type_name: BOOTSTRAP.to_owned() }, yaml.as_bytes(), &mut bytes)
        .unwrap();
    Bootstrap::check(Written::decode(bytes.as_slice()).unwrap(), flags(arguments), Environment::default())
}

#[test]
fn admin_address_concurrency_and_runtime_are_read() {
    let loaded = check(
        "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n\
         layered_runtime: {layers: [{name: a, static_layer: {x: {y: 5}, z: true}}, {name: b, static_layer: {x.y: 7}}]}\n",
        &["--concurrency", "3", "--drain-time-s", "9"],
    )
    .unwrap();
    assert_eq!(loaded.admin, Some(AdminAddress::Tcp("127.0.0.1:0".parse().unwrap())));
    assert_eq!(loaded.concurrency.get(), 3);
    assert_eq!(loaded.drain_time, Duration::from_secs(9));
    assert_eq!(loaded.runtime, BTreeMap::from([("x.y".to_owned(), 7.0), ("z".to_owned(), 1.0)]));
    let pipe = check("admin: {address: {pipe: {path: /run/admin.sock}}}", &["--concurrency", "0"]).unwrap();
    assert_eq!(pipe.admin, Some(AdminAddress::Unix("/run/admin.sock".into(), 0o600)));
    assert!(pipe.concurrency.get() >= 1);
}

#[test]
fn what_would_be_ignored_is_refused_by_name() {
    let cases = [
        ("overload_manager: {refresh_interval: 1s}", "not supported yet: overload_manager"),
        ("stats_sinks: [{name: x}]", "not supported yet: stats_sinks"),
        (
            "layered_runtime: {layers: [{name: a, disk_layer: {}}]}",
            "not supported yet: layered_runtime.layers[0].disk_layer",
        ),
        ("admin: {address: {socket_address: {address: localhost, port_value: 1}}}", "no IP address"),
        (
            "admin: {address: {socket_address: {address: '::1', port_value: 70000}}}",
            "admin.address.socket_address.port_value",
        ),
        ("dynamic_resources: {ads_config: {api_type: DELTA_GRPC}}", "node.id"),
    ];
    for (yaml, expected) in cases {
        let error = check(yaml, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}

#[test]
fn a_missing_file_and_no_file_say_so() {
    let converter = Converter::new("/nonexistent/proxy".into());
    let load = |arguments: &[&str]| Bootstrap::load(flags(arguments), Environment::default(), &converter).unwrap_err();
    assert!(load(&[]).to_string().contains("-c FILE"));
    assert!(load(&["-c", "/nonexistent/b.yaml"]).to_string().starts_with("/nonexistent/b.yaml: No such file"));
}
