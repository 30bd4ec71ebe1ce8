//! Istio's documented policy tasks with their YAML as written, against a real Envoy and our proxy.
//!
//! The workloads of the bookshop have addresses of this machine, 127.0.1.1 and on: a client calls from one of them, and
//! the proxy listens at the address of the workload that is called.

use crate::mesh::{Mixer, Place, grpc_service, proxy, received};
use crate::redis_server::RedisServer;
use e2e::client::{Answer, exchange_from, read_head};
use e2e::proxies::{Flavour, Proxy};
use serde_json::{Value, json};
use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Workloads and their labels; the first has the address 127.0.1.1.
const WORKLOADS: [(&str, &str); 5] = [
    ("productpage", r#"{"app":"productpage","version":"v1"}"#),
    ("reviews-v2", r#"{"app":"reviews","version":"v2"}"#),
    ("reviews-v3", r#"{"app":"reviews","version":"v3"}"#),
    ("ratings", r#"{"app":"ratings","version":"v1"}"#),
    ("ingress", r#"{"istio":"ingressgateway"}"#),
];
const BOTH: [Flavour; 2] = [Flavour::Envoy, Flavour::Ferromesh];
/// How long a lease may keep an old decision, and a file may take to be read.
const CHANGE: Duration = Duration::from_secs(10);

fn address(name: &str) -> Ipv4Addr {
    let index = WORKLOADS.iter().position(|(known, _)| *known == name).unwrap();
    Ipv4Addr::new(127, 0, 1, u8::try_from(index + 1).unwrap())
}

/// What mixer asks pilot for: the table of workloads; it never changes.
fn pilot() -> SocketAddr {
    let table: Vec<Value> = WORKLOADS
        .iter()
        .map(|(name, labels)| {
            let app = name.split('-').next().unwrap();
            let labels: Value = serde_json::from_str(labels).unwrap();
            json!({"name": name, "namespace": "default", "addresses": [address(name)], "labels": labels,
                "workload": name, "services": [format!("{app}.default.svc.cluster.local")]})
        })
        .collect();
    let table = json!(table).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let table = table.clone();
            std::thread::spawn(move || drop(tell(stream, &table))); // mixer went away: nobody to tell
        }
    });
    address
}

fn tell(mut stream: TcpStream, table: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(head) = read_head(&mut reader)? {
        if head.header("if-none-match").is_some() {
            // Nothing changes: the question stays open until mixer leaves.
            return reader.read_to_end(&mut Vec::new()).map(drop);
        }
        let body = if head.first.contains("workloadz") { table } else { "[]" };
        write!(stream, "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

/// A proxy before a workload that asks a mixer with these rules.
struct Task {
    mixer: Mixer,
    listen: SocketAddr,
    flavour: Flavour,
    _proxy: Proxy,
}

impl Task {
    fn start(flavour: Flavour, called: &str, rules: &str) -> Self {
        let mixer = Mixer::start(rules, "", Some(pilot()));
        let filter = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "grpc_service": grpc_service(), "transport_api_version": "V3",
        });
        let place = Place { flavour, address: address(called) };
        let (proxy, listen) = proxy(place, &mixer, ("envoy.filters.http.ext_authz", filter), &Value::Null);
        Self { mixer, listen, flavour, _proxy: proxy }
    }

    fn get(&self, from: &str, headers: &str) -> Answer {
        let request = format!("GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n{headers}\r\n");
        exchange_from(address(from), self.listen, &request).unwrap()
    }

    /// Asks until a status comes.
    fn until(&self, from: &str, headers: &str, status: u16) -> Answer {
        let deadline = Instant::now() + CHANGE;
        loop {
            let answer = self.get(from, headers);
            if answer.status == status {
                return answer;
            }
            assert!(Instant::now() < deadline, "{:?}: {answer:?} instead of {status}", self.flavour);
        }
    }
}

// spec: MX-72, MX-73, MX-104, MX-51
#[test]
fn denials_and_lists() {
    for flavour in BOTH {
        let rules = include_str!("../../../mixer/tests/policy/yaml/deny-label.yaml");
        let task = Task::start(flavour, "ratings", rules);
        let denied = task.until("reviews-v3", "", 403);
        assert_eq!(denied.body, "PERMISSION_DENIED:denyreviewsv3handler.default:Not allowed");
        assert_eq!(task.get("reviews-v2", "").status, 200, "{flavour:?}");

        task.mixer.change(include_str!("../../../mixer/tests/policy/yaml/whitelist.yaml"));
        let deadline = Instant::now() + CHANGE;
        while task.get("reviews-v3", "").body != "PERMISSION_DENIED:whitelist.default:v3 is not whitelisted" {
            assert!(Instant::now() < deadline, "{flavour:?}: the change is not in force");
        }
        assert_eq!(task.get("reviews-v2", "").status, 200, "{flavour:?}");

        task.mixer.change(include_str!("../../../mixer/tests/policy/yaml/whitelist-ip.yaml"));
        task.until("reviews-v3", "", 200);
        let denied = task.until("ingress", "", 403);
        assert_eq!(denied.body, "PERMISSION_DENIED:whitelistip.default:127.0.1.5 is not whitelisted");
    }
}

fn quota(handler: &str, text: &str) -> String {
    let rest = include_str!("../../../mixer/tests/policy/yaml/quota.yaml").replace("HANDLER", handler);
    format!("{text}{rest}")
}

/// How many of ten requests pass.
fn passed(task: &Task, headers: &str) -> usize {
    (0..10).filter(|_| task.get("ingress", headers).status == 200).count()
}

// spec: MX-74, MX-49, MX-54
#[test]
fn rate_limits_in_memory_and_conditional() {
    for flavour in BOTH {
        let rules = quota("quotahandler", include_str!("../../../mixer/tests/policy/yaml/memquota.yaml"));
        let task = Task::start(flavour, "productpage", &rules);
        // Mixer learns of the workloads in its own time: until then no quota is bound.
        let refused = task.until("ingress", "x-forwarded-for: 1.2.3.4\r\n", 429);
        assert_eq!(refused.body, "RESOURCE_EXHAUSTED:Quota is exhausted for: requestcountquota");
        assert_eq!(passed(&task, "x-forwarded-for: 5.6.7.8\r\n"), 2, "{flavour:?}: two in five seconds");
        assert_eq!(passed(&task, "x-forwarded-for: 10.28.11.20\r\n"), 10, "{flavour:?}: an override");

        task.mixer.change(&rules.replace("  # match: match", "  match: match"));
        task.until("ingress", "x-forwarded-for: 9.9.9.9\r\ncookie: session=jason\r\n", 200);
        // The rule reads the cookie: without any it does not match.
        task.until("ingress", "x-forwarded-for: 9.9.9.9\r\ncookie: theme=dark\r\n", 429);
        let logged_in = "x-forwarded-for: 9.9.9.9\r\ncookie: session=jason\r\n";
        assert_eq!(passed(&task, logged_in), 10, "{flavour:?}: who is logged in is not limited");
    }
}

// spec: MX-75
#[test]
fn rate_limits_in_redis_that_dies_and_comes_back() {
    for flavour in BOTH {
        let mut redis = RedisServer::start();
        let rules = quota("redishandler", include_str!("../../../mixer/tests/policy/yaml/redisquota.yaml"))
            .replace("redis-release-master:6379", &redis.address())
            .replace("validDuration: 1s", "validDuration: 20s");
        let task = Task::start(flavour, "productpage", &rules);
        task.until("ingress", "x-forwarded-for: 1.2.3.4\r\n", 429);
        assert_eq!(passed(&task, "x-forwarded-for: 5.6.7.8\r\n"), 2, "{flavour:?}");
        redis.kill();
        let started = Instant::now();
        let refused = task.get("ingress", "x-forwarded-for: 7.7.7.7\r\n");
        assert_eq!(refused.status, 503, "{flavour:?}: {}", refused.body);
        assert!(started.elapsed() < Duration::from_secs(1), "{flavour:?}: never hanging: {:?}", started.elapsed());
        redis.restart();
        task.until("ingress", "x-forwarded-for: 8.8.8.8\r\n", 200);
        assert_eq!(passed(&task, "x-forwarded-for: 9.9.9.9\r\n"), 2, "{flavour:?}: it counts again");
    }
}

// spec: MX-24, MX-25
#[test]
fn control_of_headers() {
    for flavour in BOTH {
        let task = Task::start(flavour, "productpage", include_str!("../../../mixer/tests/policy/yaml/keyval.yaml"));
        let answer = task.until("ingress", "user: jason\r\nuser-group: spoofed\r\n", 200);
        assert_eq!(received(&answer, "user-group").as_deref(), Some("admin"), "{flavour:?}");
        let refused = task.get("ingress", "user: bill\r\n");
        let expected = (404, r#"<error_detail>key "bill" not found</error_detail>"#);
        assert_eq!((refused.status, refused.body.as_str()), expected, "{flavour:?}");
    }
}
