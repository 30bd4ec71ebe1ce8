//! `meshctl tcp-echo`, `udp-echo` and `redirect`: Fortio's servers one by one (spec FO-7).

use crate::load::server::Settings;

/// `meshctl tcp-echo`. The address is a port, host:port, a path or unix:path.
#[derive(Debug, Clone, clap::Args)]
pub struct TcpArgs {
    /// Where to listen.
    #[arg(long, default_value = "8078", value_name = "ADDRESS")]
    tcp_port: String,
}

/// `meshctl udp-echo`. The address is a port or host:port.
#[derive(Debug, Clone, clap::Args)]
pub struct UdpArgs {
    /// Where to listen.
    #[arg(long, default_value = "8078", value_name = "ADDRESS")]
    udp_port: String,
}

/// `meshctl redirect`. Every request is led to the same URL by https. The address is a port, host:port, a path or unix:path.
#[derive(Debug, Clone, clap::Args)]
pub struct RedirectArgs {
    /// Where to listen.
    #[arg(long, default_value = "8081", value_name = "ADDRESS")]
    redirect_port: String,
}

impl TcpArgs {
    /// This server alone.
    pub fn settings(self) -> Settings {
        Settings { tcp: self.tcp_port, ..Settings::nothing() }
    }
}

impl UdpArgs {
    /// This server alone.
    pub fn settings(self) -> Settings {
        Settings { udp: self.udp_port, ..Settings::nothing() }
    }
}

impl RedirectArgs {
    /// This server alone.
    pub fn settings(self) -> Settings {
        Settings { redirect: self.redirect_port, ..Settings::nothing() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::server;
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    #[derive(Parser)]
    struct Tcp {
        #[command(flatten)]
        args: TcpArgs,
    }

    #[derive(Parser)]
    struct Redirect {
        #[command(flatten)]
        args: RedirectArgs,
    }

    async fn exchange(path: &str, question: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(question).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    }

    // spec: FO-7
    #[tokio::test]
    async fn each_server_runs_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("unix:{}", directory.path().join(name).display());
        let (tcp, redirect) = (path("tcp"), path("redirect"));
        let only_tcp = Tcp::parse_from(["x", "--tcp-port", &tcp]).args.settings();
        assert_eq!([&only_tcp.http, &only_tcp.grpc, &only_tcp.udp, &only_tcp.redirect], ["disabled"; 4]);
        server::start(&only_tcp).await.unwrap();
        let only_redirect = Redirect::parse_from(["x", "--redirect-port", &redirect]).args.settings();
        server::start(&only_redirect).await.unwrap();
        let bare = |text: &str| text.strip_prefix("unix:").unwrap().to_owned();
        assert_eq!(exchange(&bare(&tcp), b"hello").await, b"hello");
        let answer = exchange(&bare(&redirect), b"GET /a?b HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 303") && answer.contains("location: https://shop/a?b\r\n"), "{answer}");
        let udp = UdpArgs { udp_port: "127.0.0.1:0".to_owned() }.settings();
        assert_eq!([&udp.http, &udp.tcp, &udp.udp], ["disabled", "disabled", "127.0.0.1:0"]);
    }
}
