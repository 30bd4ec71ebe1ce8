//! Clusters change under way: those that do not are left alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Proxy, cluster, connect, free_port, http, listener, read_head, upstream};

/// An application that keeps connections, answers with its name, and counts the connections that it was given.
fn app(name: &'static str, connections: &Arc<AtomicUsize>) -> u16 {
    let connections = Arc::clone(connections);
    upstream(move |mut stream: TcpStream| {
        connections.fetch_add(1, Ordering::SeqCst);
        while read_head(&mut stream).ends_with("\r\n\r\n") {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
    })
}

/// Puts this version of the clusters in place, at once.
fn publish(directory: &Path, version: u32, clusters: &[String]) {
    let mut text = format!("version_info: '{version}'\nresources:\n");
    for cluster in clusters {
        let fields = cluster.trim().strip_prefix("- {").unwrap();
        text += &format!("- {{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, {fields}\n");
    }
    let new = directory.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.join("cds.yaml")).unwrap();
}

fn body(port: u16, path: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

// spec: LC-2
#[test]
fn an_update_of_one_cluster_keeps_the_connections_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second, third] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let (a, b, c) = (app("a", &first), app("b", &second), app("c", &third));
    let port = free_port();
    let routes = "{match: {prefix: /a}, route: {cluster: a}}, {match: {prefix: /b}, route: {cluster: b}}";
    let chain = format!("{{filters: [{}]}}", http(routes, ""));
    publish(directory.path(), 1, &[cluster("a", &[a])]);
    let bootstrap = format!(
        "node: {{id: one, cluster: c}}\ndynamic_resources: {{cds_config: {{path_config_source: {{path: {}}}}}}}\n\
         static_resources: {{listeners: [{}]}}\n",
        directory.path().join("cds.yaml").display(),
        listener("l", port, "", &chain)
    );
    let proxy = Proxy::launch(directory.path(), &bootstrap, &[], &[]);
    assert_eq!((body(port, "/a"), body(port, "/a"), body(port, "/b")), ("a".into(), "a".into(), String::new()));
    let connections = || first.load(Ordering::SeqCst);
    assert_eq!(connections(), 1, "the second request took the first one's connection");

    publish(directory.path(), 2, &[cluster("a", &[a]), cluster("b", &[b])]);
    proxy.until(|_| body(port, "/b") == "b");
    assert_eq!((body(port, "/a"), connections()), ("a".into(), 1), "a new cluster");

    publish(directory.path(), 3, &[cluster("a", &[a]), cluster("b", &[c])]);
    proxy.until(|_| body(port, "/b") == "c");
    assert_eq!((body(port, "/a"), connections()), ("a".into(), 1), "a changed cluster");

    publish(directory.path(), 4, &[cluster("a", &[a])]);
    proxy.until(|_| body(port, "/b").is_empty());
    assert_eq!((body(port, "/a"), connections()), ("a".into(), 1), "a removed cluster");
    publish(directory.path(), 5, &[cluster("a", &[a]).replace("type: STATIC", "type: STATIC, connect_timeout: 7s")]);
    proxy.until(|proxy| {
        proxy.admin("GET", "/config_dump").is_some_and(|dump| {
            dump.contains("\"connect_timeout\": \"7s\"") || dump.contains("\"connect_timeout\":\"7s\"")
        })
    });
    assert_eq!(body(port, "/a"), "a", "a cluster that changes serves on");
}
