//! A mirror of a streaming request: the request never waits for the copy, the copy is whole or plainly cut off.

use crate::world::{H1Server, World, pattern, route, seeds, settle};
use bytes::Bytes;
use proxy::cluster::Protocol;
use proxy::route::Mirror;

// spec: VS-36, RT-11
#[test]
fn the_request_never_waits_for_its_copy() {
    seeds(|seed| async move {
        let world = World::new(seed);
        let main = world.cluster("up", Protocol::H1, 32 << 10);
        let copies = world.cluster("copy", Protocol::H1, 8 << 10);
        let mut route = route("up");
        route.mirrors = [Mirror { cluster: "copy".into(), numerator: 1, denominator: 1, host_suffix: false }].into();
        let mut client = world.serve(Vec::new(), route, 1 << 20);
        let total = world.below(300 << 10);
        let whole = pattern(0, total);
        let id = client.open(b"application/grpc", None).await;
        // The copy's server: attentive, slow, or dead.
        let attention = [1, 4, usize::MAX][world.below(3)];
        let (mut sent, mut ended) = (0, false);
        let (mut server, mut copy) = (None::<H1Server>, None::<H1Server>);
        let mut status = None;
        for step in 0.. {
            assert!(step < 20_000, "the request hangs at {sent} of {total}");
            if !ended && client.can_send(id) {
                let n = (1 + world.below(8 << 10)).min(total - sent);
                if n > 0 {
                    client.h2.send_data(id, Bytes::from(pattern(sent, n)));
                    sent += n;
                } else {
                    client.h2.send_end(id, None);
                    ended = true;
                }
            }
            client.turn();
            settle().await;
            server = server.or_else(|| main.borrow_mut().pop_front().map(H1Server::new));
            copy = copy.or_else(|| copies.borrow_mut().pop_front().map(H1Server::new));
            if let Some(server) = &mut server {
                server.turn();
                if server.complete && !server.closed {
                    assert_eq!(server.body, whole);
                    server.answer(200, "ok");
                }
            }
            if let Some(copy) = copy.as_mut().filter(|_| attention != usize::MAX && world.below(attention) == 0) {
                copy.turn();
                assert!(whole.starts_with(&copy.body), "the copy differs");
                if copy.complete {
                    assert_eq!(copy.body, whole, "a copy that looks whole is whole");
                }
            }
            status = status.or_else(|| client.head(id));
            if status.is_some() {
                break;
            }
        }
        assert_eq!(status, Some(Ok(200)));
        let mut body = Vec::new();
        client.body(id, &mut body);
        client.h2.release(id);
        client.turn();
        // The copy ends as well, once its server answers or goes away.
        for _ in 0..400 {
            let Some(copy) = copy.as_mut().filter(|copy| !copy.closed) else { break };
            copy.turn();
            if copy.complete {
                assert_eq!(copy.body, whole);
                copy.answer(500, "");
                break;
            }
            settle().await;
        }
        if let Some(copy) = &copy {
            copy.pipe.reset();
        }
        settle().await;
        world.assert_quiet();
    });
}
