//! How long the addresses of a name hold: what the system's resolver does not tell.

use super::forward::Forwarder;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use std::net::SocketAddr;
use std::time::Duration;

/// The shortest life of the records that lead from `host` to its addresses of the families of `answers`; `None` where no
/// server says, as for a name of the hosts file.
pub async fn life(forwarder: &Forwarder, host: &str, answers: &[SocketAddr]) -> Option<Duration> {
    let mut least = None;
    for (kind, wanted) in [
        (RecordType::A, answers.iter().any(SocketAddr::is_ipv4)),
        (RecordType::AAAA, answers.iter().any(SocketAddr::is_ipv6)),
    ] {
        if !wanted {
            continue;
        }
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        let mut name = Name::from_ascii(host).ok()?;
        name.set_fqdn(true);
        question.add_query(Query::query(name, kind));
        let answer = Message::from_vec(&forwarder.udp(&question.to_vec().ok()?).await?).ok()?;
        let seconds = answer.answers.iter().map(|record| record.ttl).min();
        least = seconds.into_iter().chain(least).min();
    }
    least.map(|seconds| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::{A, AAAA};
    use hickory_proto::rr::{RData, Record};
    use std::net::{Ipv4Addr, Ipv6Addr};
    use tokio::net::UdpSocket;

    // spec: LB-16
    #[tokio::test]
    async fn the_shortest_life_of_the_records_in_use_counts() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok((length, client)) = server.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let asked = &question.queries[0];
                let mut answer = question.clone();
                let mut say = |ttl, data| answer.answers.push(Record::from_rdata(asked.name().clone(), ttl, data));
                match (asked.name().to_ascii().as_str(), asked.query_type()) {
                    ("a.test.", RecordType::A) => {
                        say(60, RData::A(A(Ipv4Addr::LOCALHOST)));
                        say(20, RData::A(A(Ipv4Addr::LOCALHOST)));
                    }
                    ("a.test.", _) => say(10, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))),
                    _ => {}
                }
                server.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
            }
        });
        let forwarder = Forwarder::new(vec![address], "127.0.0.1:53".parse().unwrap());
        let (four, six) = (SocketAddr::from(([127, 0, 0, 1], 1)), "[::1]:1".parse().unwrap());
        let s = Duration::from_secs;
        assert_eq!(life(&forwarder, "a.test", &[four]).await, Some(s(20)));
        assert_eq!(life(&forwarder, "a.test", &[four, six]).await, Some(s(10)));
        assert_eq!(life(&forwarder, "b.test", &[four]).await, None);
    }
}
