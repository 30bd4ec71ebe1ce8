use super::*;
use crate::dns::{ResolvConf, Viewpoint};
use hickory_proto::op::Query;
use proto::missing::{NameInfo, NameTable};
use std::collections::HashSet;

struct Pod {
    address: SocketAddr,
    table: watch::Sender<Option<Arc<Names>>>,
}

fn many_names() -> Arc<Names> {
    let info = |ips: Vec<String>| NameInfo { ips, registry: "External".into(), ..Default::default() };
    let table = NameTable {
        table: [
            ("api.example.com".to_owned(), info(vec!["240.240.0.1".into(), "2001:2::1".into()])),
            ("only4.example.com".to_owned(), info(vec!["240.240.0.2".into()])),
            ("big.example.com".to_owned(), info((1..=60).map(|n| format!("10.0.0.{n}")).collect())),
        ]
        .into(),
    };
    let search = vec!["shop.svc.cluster.local".to_owned()];
    Arc::new(Names::new(&table, &Viewpoint { search, ..Default::default() }))
}

/// A server whose forwarder asks `upstream`.
async fn pod(upstream: Vec<SocketAddr>) -> Pod {
    let (table, receiver) = watch::channel(Some(many_names()));
    let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let forwarder = Forwarder::new(upstream, local).with_timeout(Duration::from_millis(200));
    let server = DnsServer::bind(local, receiver, forwarder).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.run());
    Pod { address, table }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn ask_bytes(address: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, address).await.unwrap();
    let mut buffer = vec![0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(3), socket.recv(&mut buffer)).await;
    received.ok().map(|length| buffer[..length.unwrap()].to_vec())
}

async fn ask(address: SocketAddr, message: &Message) -> Message {
    let answer = Message::from_vec(&ask_bytes(address, &message.to_vec().unwrap()).await.unwrap()).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.queries, message.queries);
    answer
}

/// A name server that answers each question with the given code over UDP and TCP, and tells what it was asked.
async fn upstream(code: ResponseCode) -> SocketAddr {
    let (udp, tcp) = bind_both("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            udp.send_to(&reply(&question, code).to_vec().unwrap(), client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let question = Message::from_vec(&read_framed(&mut stream).await.unwrap().unwrap()).unwrap();
            write_framed(&mut stream, &reply(&question, code).to_vec().unwrap()).await.unwrap();
        }
    });
    address
}

// spec: DN-1
#[tokio::test]
async fn known_names_are_answered_with_authority_and_a_ttl_of_30_s() {
    let pod = pod(Vec::new()).await;
    for (kind, address) in [(RecordType::A, "240.240.0.1"), (RecordType::AAAA, "2001:2::1")] {
        let answer = ask(pod.address, &question("API.example.com.", kind)).await;
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!((answer.answers[0].ttl, answer.answers[0].data.to_string()), (30, address.to_owned()));
    }
}

// spec: DN-1
#[tokio::test]
async fn other_types_of_a_known_name_have_no_data_and_no_error() {
    let pod = pod(Vec::new()).await;
    for (name, kind) in [("only4.example.com.", RecordType::AAAA), ("api.example.com.", RecordType::TXT)] {
        let answer = ask(pod.address, &question(name, kind)).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    }
}

// spec: DN-1
#[tokio::test]
async fn addresses_are_shuffled() {
    let pod = pod(Vec::new()).await;
    let mut message = question("big.example.com.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    let mut first = HashSet::new();
    for _ in 0..20 {
        let answer = ask(pod.address, &message).await;
        assert_eq!(answer.answers.len(), 60);
        first.insert(answer.answers[0].data.to_string());
    }
    assert!(first.len() > 5, "{first:?}");
}

// spec: DN-1
#[tokio::test]
async fn unknown_names_go_to_the_next_server_when_one_is_silent() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let pod = pod(vec![silent.local_addr().unwrap(), upstream(ResponseCode::NXDomain).await]).await;
    let answer = ask(pod.address, &question("elsewhere.example.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let mut other_class = question("api.example.com.", RecordType::A);
    other_class.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(pod.address, &other_class).await.metadata.response_code, ResponseCode::NXDomain);
}

// spec: DN-1
#[tokio::test(start_paused = true)]
async fn each_server_has_five_seconds() {
    let silent = [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
    let servers = silent.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let forwarder = Forwarder::new(servers, "127.0.0.1:53".parse().unwrap());
    let begun = tokio::time::Instant::now();
    let asked = question("elsewhere.example.", RecordType::A).to_vec().unwrap();
    assert_eq!(forwarder.udp(&asked).await, None);
    assert_eq!(begun.elapsed().as_secs(), 10, "two servers");
}

// spec: DN-1, DN-2
#[tokio::test]
async fn without_a_table_or_a_server_the_answer_is_servfail() {
    let pod = pod(Vec::new()).await;
    let unknown = question("elsewhere.example.", RecordType::A);
    assert_eq!(ask(pod.address, &unknown).await.metadata.response_code, ResponseCode::ServFail);
    pod.table.send_replace(None);
    let known = question("api.example.com.", RecordType::A);
    assert_eq!(ask(pod.address, &known).await.metadata.response_code, ResponseCode::ServFail);
    pod.table.send_replace(Some(many_names()));
    assert_eq!(ask(pod.address, &known).await.metadata.response_code, ResponseCode::NoError);
}

// spec: DN-2
#[tokio::test]
async fn a_search_domain_is_answered_by_an_alias() {
    let pod = pod(Vec::new()).await;
    let answer = ask(pod.address, &question("api.example.com.shop.svc.cluster.local.", RecordType::A)).await;
    let records: Vec<_> = answer.answers.iter().map(|r| (r.name.to_ascii(), r.data.to_string())).collect();
    assert_eq!(
        records,
        [
            ("api.example.com.shop.svc.cluster.local.".to_owned(), "api.example.com.".to_owned()),
            ("api.example.com.".to_owned(), "240.240.0.1".to_owned()),
        ]
    );
}

// spec: DN-2
#[tokio::test]
async fn long_answers_are_cut_over_udp_and_whole_over_tcp() {
    let pod = pod(vec![upstream(ResponseCode::Refused).await]).await;
    let message = question("big.example.com.", RecordType::A);
    let cut = ask(pod.address, &message).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut stream = TcpStream::connect(pod.address).await.unwrap();
    for (name, records, code) in
        [("big.example.com.", 60, ResponseCode::NoError), ("elsewhere.example.", 0, ResponseCode::Refused)]
    {
        write_framed(&mut stream, &question(name, RecordType::A).to_vec().unwrap()).await.unwrap();
        let answer = Message::from_vec(&read_framed(&mut stream).await.unwrap().unwrap()).unwrap();
        assert_eq!((answer.answers.len(), answer.metadata.response_code), (records, code));
    }
}

#[tokio::test]
async fn malformed_packets_get_formerr_or_nothing() {
    let pod = pod(Vec::new()).await;
    let mut broken = question("api.example.com.", RecordType::A).to_vec().unwrap();
    broken.truncate(14);
    let answer = Message::from_vec(&ask_bytes(pod.address, &broken).await.unwrap()).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    // Neither an answer nor noise is answered; the server lives on.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut response = question("api.example.com.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    socket.send_to(&response.to_vec().unwrap(), pod.address).await.unwrap();
    socket.send_to(b"noise", pod.address).await.unwrap();
    ask(pod.address, &question("api.example.com.", RecordType::A)).await;
    assert!(socket.try_recv(&mut [0; 16]).is_err());
}

#[test]
fn reads_resolv_conf() {
    let text = "search a.local b.local\nnameserver 10.0.0.10\nnameserver fe80::1%eth0\noptions ndots:5\n";
    let conf = ResolvConf::parse(text);
    assert_eq!(conf.search, ["a.local", "b.local"]);
    assert_eq!(conf.servers, ["10.0.0.10:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
}
