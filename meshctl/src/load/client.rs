//! One of the clients, whichever the target needs.

use super::dial::Dialer;
use super::echo::{self, TcpClient, Traffic, UdpClient};
use super::grpc::GrpcClient;
use super::h1::FastClient;
use super::h2::GeneralClient;
use super::histogram::Histogram;
use super::plan::Plan;
use super::record::{Answer, Code};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// One client.
#[derive(Debug)]
pub enum Client {
    /// HTTP/1.
    Fast(Box<FastClient>),
    /// HTTP/2, or HTTP/1 by hyper.
    General(Box<GeneralClient>),
    /// gRPC.
    Grpc(Box<GrpcClient>),
    /// TCP.
    Tcp(Box<TcpClient>),
    /// UDP.
    Udp(Box<UdpClient>),
}

/// What is known of a connection at the end.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Times of connecting, in seconds; its count is the number of sockets.
    pub connecting: Histogram,
    /// Addresses with how often they were used.
    pub addresses: BTreeMap<String, u64>,
    /// Bytes of TCP and UDP.
    pub traffic: Traffic,
}

impl Client {
    /// One call, and what went wrong.
    pub async fn call(&mut self) -> (Answer, Option<String>) {
        let outcome = match self {
            Self::Fast(client) => client.call().await,
            Self::General(client) => client.call().await,
            Self::Grpc(client) => match client.call().await {
                Err(error) => {
                    let code = Code::Named(Cow::Borrowed("ERROR"));
                    return (Answer { code, ..Answer::none() }, Some(error.to_string()));
                }
                outcome => outcome,
            },
            Self::Tcp(client) => {
                let outcome = client.call().await;
                return (echo::answer(&outcome), outcome.err().map(|error| error.to_string()));
            }
            Self::Udp(client) => {
                let outcome = client.call().await;
                return (echo::answer(&outcome), outcome.err().map(|error| error.to_string()));
            }
        };
        match outcome {
            Ok(answer) => (answer, None),
            Err(error) => (Answer::none(), Some(describe(&error))),
        }
    }

    /// What is known of the connection; `None` for a further stream of one.
    pub fn facts(&self, plan: &Plan) -> Option<Facts> {
        let of = |dialer: &Dialer, traffic: Traffic| Facts {
            connecting: dialer.times.clone(),
            addresses: dialer.addresses.clone(),
            traffic,
        };
        match self {
            Self::Fast(client) => Some(of(&client.dialer, Traffic::default())),
            Self::General(client) => Some(of(&client.link.dialer, Traffic::default())),
            Self::Grpc(client) if client.is_first => {
                let link = client.link.try_lock().ok()?;
                Some(of(&link.dialer, Traffic::default()))
            }
            Self::Grpc(_) => None,
            Self::Tcp(client) => Some(of(&client.dialer, client.traffic)),
            Self::Udp(client) => {
                let mut connecting = Histogram::new(plan.offset, plan.resolution);
                (0..client.sockets).for_each(|_| connecting.record(0.0)); // nothing connects
                Some(Facts { connecting, addresses: BTreeMap::new(), traffic: client.traffic })
            }
        }
    }
}

/// An error with its causes, in one line.
fn describe(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
