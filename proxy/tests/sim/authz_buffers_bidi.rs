//! ext_authz waits for its service while it buffers the body of a bidirectional gRPC stream.

use crate::world::{Client, H1Server, World, pattern, read, route, seeds, settle, write};
use bytes::Bytes;
use proxy::cluster::Protocol;
use proxy::codec::h2::{Config, Connection, Role};
use proxy::filter::Filter;
use proxy::filter::ext_authz::{BodyLimit, ExtAuthz, HttpService, Service};
use proxy::message::{Frame, ResponseHead};
use proxy::net::Io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const BUFFERED: usize = 1000;

fn filter() -> Filter {
    Filter::ExtAuthz(ExtAuthz {
        id: 1,
        service: Service::Http(Box::new(HttpService {
            cluster: "authz".into(),
            path_prefix: "/check".into(),
            ..HttpService::default()
        })),
        timeout: Duration::from_secs(2),
        allow_on_error: false,
        status_on_error: 403,
        body: Some(BodyLimit { max_bytes: BUFFERED, allow_partial: true, as_bytes: false }),
        request_headers: None,
        mark_on_error: false,
        enabled: None,
        clear_route: false,
    })
}

/// A server that sends back what it gets.
struct Echo {
    io: Io,
    h2: Connection,
    stream: Option<u32>,
    got: Vec<u8>,
    ended: bool,
}

impl Echo {
    fn turn(&mut self) {
        match read(&mut self.io) {
            Some(bytes) => self.h2.receive(&bytes),
            None => self.h2.close(),
        }
        if let Some((id, ..)) = self.h2.next_request() {
            self.stream = Some(id);
            self.h2.send_response(id, &ResponseHead::new(200), None, false);
        }
        let cx = &mut Context::from_waker(Waker::noop());
        if let Some(id) = self.stream.filter(|_| !self.ended) {
            while let Poll::Ready(Ok(())) = self.h2.poll_send(id, cx) {
                match self.h2.poll_frame(id, cx) {
                    Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                        self.got.extend_from_slice(&data);
                        self.h2.send_data(id, data);
                    }
                    Poll::Ready(None) => {
                        self.h2.send_end(id, None);
                        self.ended = true;
                        break;
                    }
                    _ => break,
                }
            }
        }
        let n = write(&mut self.io, self.h2.output());
        self.h2.wrote(n);
    }
}

#[expect(clippy::too_many_arguments, reason = "the state of one upload")]
fn push(world: &World, client: &mut Client, id: u32, total: usize, sent: &mut usize, ended: &mut bool) {
    if *ended || world.below(2) == 0 || !client.can_send(id) {
        return;
    }
    let n = (1 + world.below(700)).min(total - *sent);
    if n > 0 {
        client.h2.send_data(id, Bytes::from(pattern(*sent, n)));
        *sent += n;
    } else {
        client.h2.send_end(id, None);
        *ended = true;
    }
}

// spec: HP-13, LR-17, HP-5
#[test]
fn the_stream_waits_for_the_verdict_and_loses_nothing() {
    seeds(|seed| async move {
        let world = World::new(seed);
        let services = world.cluster("authz", Protocol::H1, 64 << 10);
        let backends = world.cluster("up", Protocol::H2, 64 << 10);
        let mut client = world.serve(vec![filter()], route("up"), 1 << 20);
        let total = world.below(6000);
        // The service allows, denies, or never answers.
        let verdict = [Some(200), Some(200), Some(418), None][world.below(4)];
        let id = client.open(b"application/grpc", None).await;
        let (mut sent, mut ended, mut asked) = (0, false, None::<H1Server>);
        let (mut backend, mut status, mut echoed, mut over) = (None::<Echo>, None, Vec::new(), None);
        for step in 0.. {
            assert!(step < 20_000, "the stream hangs: {sent} of {total} sent, {} echoed, {status:?}", echoed.len());
            push(&world, &mut client, id, total, &mut sent, &mut ended);
            client.turn();
            settle().await;
            tokio::time::advance(Duration::from_millis(10)).await;
            asked = asked.or_else(|| services.borrow_mut().pop_front().map(H1Server::new));
            if let Some(service) = asked.as_mut().filter(|service| !service.closed && world.below(3) == 0) {
                service.turn();
                if service.complete
                    && let Some(verdict) = verdict
                {
                    let expected = pattern(0, total.min(BUFFERED));
                    assert_eq!(service.body, expected, "the service sees the start of the body");
                    service.answer(verdict, "teapot");
                }
            }
            let started = backends.borrow_mut().pop_front();
            if let Some(pipe) = started {
                assert_eq!(verdict, Some(200), "nothing reaches the backend before it is allowed");
                let h2 = Connection::new(Role::Server, Config::default());
                backend = Some(Echo { io: Io::Sim(pipe), h2, stream: None, got: Vec::new(), ended: false });
            }
            if let Some(backend) = &mut backend {
                backend.turn();
            }
            if status.is_none() {
                status = client.head(id);
            }
            if status.is_some() && over.is_none() {
                over = client.body(id, &mut echoed);
            }
            if over.is_some() {
                break;
            }
        }
        match verdict {
            Some(200) => {
                assert_eq!((status, over), (Some(Ok(200)), Some(Ok(()))));
                assert_eq!(echoed, pattern(0, total));
            }
            // A denial is a gRPC trailers-only answer; no answer denies.
            Some(_) | None => assert_eq!(status, Some(Ok(200))),
        }
        client.h2.release(id);
        client.turn();
        if let Some(service) = &asked {
            service.pipe.reset();
        }
        settle().await;
        world.assert_quiet();
    });
}
