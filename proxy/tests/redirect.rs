//! The redirection rules in a network namespace of their own, with real connections.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

use clap::Parser;
use proxy::redirect::{RedirectArgs, apply, cleanup, plan};
use socket2::SockRef;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    redirect: RedirectArgs,
}

fn sh(text: &str) -> bool {
    let output = Command::new("sh").args(["-c", text]).output().unwrap();
    if !output.status.success() {
        println!("{text}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// Two namespaces joined by a cable: the workload (10.99.0.1, fd99::1) and a client (10.99.0.2, fd99::2).
struct Cable {
    name: String,
}

impl Cable {
    fn new() -> Option<Self> {
        let ready = sh("test \"$(id -u)\" = 0 && command -v iptables-restore && command -v ip && command -v setpriv");
        if !ready {
            println!("SKIPPED: needs root, iptables, iproute2 and setpriv");
            return None;
        }
        let cable = Self { name: format!("fmr{}", std::process::id()) };
        let name = &cable.name;
        assert!(sh(&format!(
            "set -e; ip netns add {name}w; ip netns add {name}c
             ip -n {name}w link add eth0 type veth peer name eth0 netns {name}c
             for n in w c; do ip -n {name}$n link set lo up; ip -n {name}$n link set eth0 up; done
             ip -n {name}w addr add 10.99.0.1/24 dev eth0; ip -n {name}c addr add 10.99.0.2/24 dev eth0
             ip -n {name}w addr add fd99::1/64 dev eth0 nodad; ip -n {name}c addr add fd99::2/64 dev eth0 nodad
             ip -n {name}w route add default via 10.99.0.2; ip -n {name}w route add default via fd99::2"
        )));
        Some(cable)
    }

    /// Runs `work` on a thread inside one of the namespaces.
    fn inside<T: Send>(&self, which: &str, work: impl FnOnce() -> T + Send) -> T {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        use std::os::fd::AsFd;
        let path = format!("/run/netns/{}{which}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let space = File::open(path).unwrap();
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        sh(&format!("ip netns del {0}w; ip netns del {0}c", self.name));
    }
}

/// Accepts one connection within two seconds and says where it was meant to go.
fn taken(listener: &TcpListener) -> Option<SocketAddr> {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        if let Ok((stream, _)) = listener.accept() {
            let socket = SockRef::from(&stream);
            let v4 = listener.local_addr().unwrap().is_ipv4();
            let meant = if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
            return Some(meant.unwrap().as_socket().unwrap());
        }
        std::thread::yield_now();
    }
    None
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(500))
}

/// Connects as the proxy's user.
fn connect_as_proxy(host: &str, port: u16) -> bool {
    sh(&format!(
        "timeout 1 setpriv --reuid 1337 --regid 1337 --clear-groups bash -c 'exec 3<>/dev/tcp/{host}/{port}' 2>/dev/null"
    ))
}

fn outbound_is_captured(v4: &TcpListener, v6: &TcpListener) {
    // spec: IP-7
    let kept = connect("10.200.0.9:80").unwrap();
    assert_eq!(taken(v4), Some("10.200.0.9:80".parse().unwrap()));
    let kept6 = connect("[fd55::9]:80").unwrap();
    assert_eq!(taken(v6), Some("[fd55::9]:80".parse().unwrap()));
    drop((kept, kept6));
    // spec: IP-5, PT-12
    assert!(!connect_as_proxy("10.200.0.9", 80), "the proxy's own traffic goes out");
    // spec: IP-3
    assert!(connect("10.200.0.9:25").is_err(), "an excluded port is not redirected");
}

fn own_addresses(inbound: &TcpListener) {
    let app = TcpListener::bind("10.99.0.1:9080").unwrap();
    // spec: IP-5
    drop(connect("10.99.0.1:9080").unwrap());
    app.set_nonblocking(true).unwrap();
    assert!(app.accept().is_ok(), "the workload reaches itself directly");
    // spec: IP-4
    assert!(connect_as_proxy("10.99.0.1", 9080));
    assert_eq!(taken(inbound), Some("10.99.0.1:9080".parse().unwrap()), "the proxy reaches its pod through itself");
    let local = TcpListener::bind("127.0.0.1:9081").unwrap();
    drop(connect("127.0.0.1:9081").unwrap());
    local.set_nonblocking(true).unwrap();
    assert!(local.accept().is_ok(), "loopback is untouched");
}

fn dns_is_captured() {
    // spec: IP-6
    let server = std::thread::spawn(|| {
        // The rules know the proxy's sockets by their owner, so this one is made by the proxy's user.
        let user = rustix::thread::Uid::from_raw(1337);
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        UdpSocket::bind("127.0.0.1:15053").unwrap()
    });
    let server = server.join().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let client = UdpSocket::bind("0.0.0.0:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.send_to(b"query", "10.200.0.53:53").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"query");
    server.send_to(b"answer", from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], "10.200.0.53:53".parse().unwrap()));
}

// spec: IP-2, IP-3, IP-4, IP-5, IP-6, IP-7, IP-9
#[test]
fn traffic_reaches_the_sidecar_and_only_what_should() {
    let Some(cable) = Cable::new() else { return };
    let args = Flags::parse_from(["redirect", "-o", "25", "--redirect-dns"]).redirect;
    let plan = plan(&args).unwrap();
    let (v4, v6, inbound, metrics) = cable.inside("w", || {
        apply(&plan).unwrap();
        apply(&plan).unwrap(); // again: nothing doubles
        let saved = Command::new("iptables-save").output().unwrap().stdout;
        let jumps = String::from_utf8(saved).unwrap().matches("-j ISTIO_INBOUND").count();
        assert_eq!(jumps, 1);
        // spec: PT-13
        TcpListener::bind("[::6]:0").expect("the proxy can reach the workload from there");
        (
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 15001)).unwrap(),
            TcpListener::bind((Ipv6Addr::LOCALHOST, 15001)).unwrap(),
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 15006)).unwrap(),
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 15090)).unwrap(),
        )
    });
    cable.inside("w", || {
        outbound_is_captured(&v4, &v6);
        own_addresses(&inbound);
        dns_is_captured();
    });
    // spec: IP-2, IP-9
    let kept = cable.inside("c", || connect("10.99.0.1:9080").unwrap());
    assert_eq!(taken(&inbound), Some("10.99.0.1:9080".parse().unwrap()));
    drop(kept);
    let mut scrape = cable.inside("c", || connect("10.99.0.1:15090").unwrap());
    let (mut stream, _) = metrics.accept().unwrap();
    scrape.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    cable.inside("w", || {
        cleanup(&plan).unwrap();
        for tool in ["iptables-save", "ip6tables-save"] {
            let saved = String::from_utf8(Command::new(tool).output().unwrap().stdout).unwrap();
            assert!(!saved.contains("ISTIO") && !saved.contains("\n-A "), "{saved}");
        }
        assert!(TcpListener::bind("[::6]:0").is_err(), "the address is gone with the rules");
    });
}
