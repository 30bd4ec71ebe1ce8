use super::*;
use crate::message::{Frame, Headers, Known, RequestHead, ResponseHead, Version};
use crate::outcome::Reason;
use bytes::Bytes;
use std::task::{Context, Poll, Waker};

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn pair() -> (Connection, Connection) {
    let (mut client, mut server) =
        (Connection::new(Role::Client, Config::default()), Connection::new(Role::Server, Config::default()));
    settle(&mut client, &mut server);
    (client, server)
}

fn carry(from: &mut Connection, to: &mut Connection) -> usize {
    let bytes = from.output().to_vec();
    from.wrote(bytes.len());
    to.receive(&bytes);
    bytes.len()
}

fn settle(a: &mut Connection, b: &mut Connection) {
    while carry(a, b) + carry(b, a) > 0 {}
}

fn get(path: &[u8]) -> RequestHead {
    let mut head = RequestHead::new(Version::H2, b"GET", b"http", b"a.b", path);
    head.headers.append(b"X-Up", b"1");
    head
}

fn frame_of(connection: &mut Connection, id: u32) -> Option<Frame> {
    match connection.poll_frame(id, &mut cx()) {
        Poll::Ready(Some(Ok(frame))) => Some(frame),
        _ => None,
    }
}

// spec: HP-1, HP-5
#[test]
fn a_request_with_body_and_trailers_crosses_and_is_answered() {
    let (mut client, mut server) = pair();
    let id = client.open(&get(b"/x?y"), None, false);
    client.send_data(id, Bytes::from_static(b"hello"));
    let mut trailers = Headers::new();
    trailers.append(b"grpc-status", b"0");
    client.send_end(id, Some(trailers));
    settle(&mut client, &mut server);
    let (sid, head, empty) = server.next_request().expect("a request");
    assert_eq!((head.method(), head.path(), head.authority()), (&b"GET"[..], &b"/x?y"[..], &b"a.b"[..]));
    assert_eq!(head.headers.get_name(b"x-up"), Some(&b"1"[..]));
    assert!(!empty);
    assert!(matches!(frame_of(&mut server, sid), Some(Frame::Data(data)) if &data[..] == b"hello"));
    assert!(matches!(frame_of(&mut server, sid), Some(Frame::Trailers(t)) if t.get(Known::GrpcStatus) == Some(b"0")));
    assert!(matches!(server.poll_frame(sid, &mut cx()), Poll::Ready(None)));
    let mut answer = ResponseHead::new(200);
    answer.headers.append(b"a", b"b");
    server.send_response(sid, &answer, Some(3), false);
    server.send_data(sid, Bytes::from_static(b"abc"));
    server.send_end(sid, None);
    server.release(sid);
    settle(&mut client, &mut server);
    let Poll::Ready(Ok(head)) = client.poll_head(id, &mut cx()) else { panic!("no head") };
    assert_eq!((head.status, head.headers.get(Known::ContentLength)), (200, Some(&b"3"[..])));
    assert_eq!(client.take_ready_body(id).as_deref(), Some(&b"abc"[..]));
    client.release(id);
    assert_eq!((client.open_streams(), server.open_streams()), (0, 0));
}

// spec: HP-2, HP-5
#[test]
fn a_reader_that_does_not_read_stops_the_writer_at_the_window() {
    let (mut client, mut server) = pair();
    let id = client.open(&get(b"/"), None, false);
    let mut sent = 0;
    while client.poll_send(id, &mut cx()).is_ready() && sent < 100 {
        client.send_data(id, Bytes::from(vec![0; 16 << 10]));
        sent += 1;
        settle(&mut client, &mut server);
    }
    assert!(sent <= 6, "{sent} pieces passed a window of 64 KiB");
    let (sid, ..) = server.next_request().expect("a request");
    let mut read = 0;
    for _ in 0..200 {
        while let Some(Frame::Data(data)) = frame_of(&mut server, sid) {
            read += data.len();
        }
        settle(&mut client, &mut server);
        if client.poll_send(id, &mut cx()).is_ready() && sent < 100 {
            client.send_data(id, Bytes::from(vec![0; 16 << 10]));
            sent += 1;
        }
    }
    assert_eq!((sent, read >= 90 * (16 << 10)), (100, true));
}

// spec: HP-3
#[test]
fn resets_refusals_and_goaway_say_what_may_be_repeated() {
    let (mut client, mut server) = pair();
    let first = client.open(&get(b"/1"), None, true);
    let second = client.open(&get(b"/2"), None, true);
    settle(&mut client, &mut server);
    let (sid, ..) = server.next_request().expect("a request");
    server.reset(sid, Code::REFUSED_STREAM);
    server.go_away(true);
    settle(&mut client, &mut server);
    let Poll::Ready(Err(outcome)) = client.poll_head(first, &mut cx()) else { panic!("not reset") };
    assert_eq!(outcome.reason, Reason::UpstreamRefused);
    assert!(!client.can_open() && client.poll_head(second, &mut cx()).is_pending());
    let mut other = Connection::new(Role::Client, Config::default());
    let id = other.open(&get(b"/"), None, true);
    other.close();
    let Poll::Ready(Err(outcome)) = other.poll_head(id, &mut cx()) else { panic!("still open") };
    assert_eq!(outcome.reason, Reason::UpstreamClosed);
}

// spec: HD-15, HD-20, LR-22
#[test]
fn malformed_heads_reset_their_stream_only() {
    let bad: [(&[u8], &[u8]); 8] = [
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"gzip"),
        (b"upgrade", b"h2c"),
        (b"keep-alive", b"1"),
        (b"content-length", b"x"),
        (b"host", b"other"),
        (b":late", b"x"),
    ];
    let (mut client, mut server) = pair();
    for (name, value) in bad {
        let mut head = get(b"/");
        head.headers.append(name, value);
        let id = client.open(&head, None, true);
        settle(&mut client, &mut server);
        assert!(server.next_request().is_none(), "{}", name.escape_ascii());
        assert!(matches!(client.poll_head(id, &mut cx()), Poll::Ready(Err(_))));
        client.release(id);
    }
    for (method, scheme, path) in
        [("GET", "ftp", "/"), ("GET", "http", "x"), ("GET", "http", "/#f"), ("G T", "http", "/")]
    {
        let head = RequestHead::new(Version::H2, method.as_bytes(), scheme.as_bytes(), b"a", path.as_bytes());
        client.open(&head, None, true);
        settle(&mut client, &mut server);
        assert!(server.next_request().is_none(), "{method} {scheme} {path}");
    }
    client.open(&get(b"/ok"), None, true);
    settle(&mut client, &mut server);
    assert!(server.next_request().is_some() && server.fatal().is_none());
}

// spec: HP-2, B8
#[test]
fn a_header_list_over_the_limit_is_refused_and_the_connection_lives() {
    let (mut client, mut server) = pair();
    let mut head = get(b"/");
    head.headers.append(b"x-long", &vec![b'a'; 61 << 10]);
    let id = client.open(&head, None, true);
    settle(&mut client, &mut server);
    assert!(server.next_request().is_none() && matches!(client.poll_head(id, &mut cx()), Poll::Ready(Err(_))));
    client.open(&get(b"/ok"), None, true);
    settle(&mut client, &mut server);
    assert!(server.next_request().is_some());
}

// spec: HP-3
#[test]
fn floods_end_the_connection() {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut out = Vec::new();
        frame::Head { length: payload.len(), kind, flags, stream }.write(&mut out);
        out.extend_from_slice(payload);
        out
    };
    let floods =
        [frame(6, 0, 0, &[0; 8]), frame(4, 0, 0, &[]), frame(2, 0, 1, &[0, 0, 0, 3, 1]), frame(0x77, 0, 0, b"x")];
    for flood in floods {
        let (_, mut server) = pair();
        for _ in 0..20_000 {
            server.receive(&flood);
            let n = server.output().len();
            server.wrote(n);
        }
        assert_eq!(server.fatal(), Some(Code::ENHANCE_YOUR_CALM), "{flood:x?}");
    }
    let (mut client, mut server) = pair();
    for _ in 0..5_000 {
        if client.fatal().is_some() || !client.can_open() {
            break;
        }
        let id = client.open(&get(b"/"), None, true);
        client.release(id);
        settle(&mut client, &mut server);
        while let Some((id, ..)) = server.next_request() {
            server.release(id);
        }
    }
    assert_eq!(server.fatal(), Some(Code::ENHANCE_YOUR_CALM));
}

#[test]
fn extended_connect_looks_like_an_upgrade() {
    let (mut client, mut server) = pair();
    let mut head = RequestHead::new(Version::H2, b"GET", b"http", b"a", b"/chat");
    head.set_protocol(b"websocket");
    client.open(&head, None, false);
    settle(&mut client, &mut server);
    let (_, head, empty) = server.next_request().expect("a request");
    assert_eq!((head.method(), head.protocol(), empty), (&b"GET"[..], &b"websocket"[..], false));
}

// RFC 7541 section 7.1.3: an intermediary must not index it either.
#[test]
fn what_must_never_be_indexed_stays_so_through_a_hop() {
    let (mut client, mut server) = pair();
    let mut head = get(b"/");
    head.headers.append_sensitive(Known::Authorization, b"authorization", b"secret");
    client.open(&head, None, true);
    settle(&mut client, &mut server);
    let (_, head, _) = server.next_request().expect("a request");
    let marks: Vec<_> = head
        .headers
        .iter()
        .enumerate()
        .map(|(i, (name, _))| (name.bytes.to_vec(), head.headers.never_index(i)))
        .collect();
    assert_eq!(marks, [(b"x-up".to_vec(), false), (b"authorization".to_vec(), true)]);
}

#[test]
fn ids_of_traces_do_not_push_what_repeats_out_of_the_table() {
    let (mut client, mut server) = pair();
    for request in 0..200 {
        let mut head = get(b"/");
        for name in [&b"traceparent"[..], b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"b3"] {
            head.headers.append(name, format!("{request:032x}").as_bytes());
        }
        head.headers.append(b"x-meta", &[b'm'; 500]);
        let id = client.open(&head, None, true);
        let bytes = carry(&mut client, &mut server);
        assert!(request == 0 || bytes < 300, "request {request} took {bytes} bytes");
        let (sid, head, _) = server.next_request().expect("a request");
        assert_eq!(head.headers.get_name(b"x-meta"), Some(&[b'm'; 500][..]));
        server.send_response(sid, &ResponseHead::new(200), None, true);
        server.release(sid);
        settle(&mut client, &mut server);
        client.release(id);
    }
}

#[test]
fn garbage_never_panics() {
    let mut random = fastrand::Rng::with_seed(17);
    for _ in 0..3_000 {
        let (mut client, mut server) = pair();
        client.open(&get(b"/"), None, false);
        let mut bytes = client.output().to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        server.receive(&bytes);
        while let Some((id, ..)) = server.next_request() {
            if server.poll_frame(id, &mut cx()).is_pending() {
                continue;
            }
            server.release(id);
        }
    }
}
