//! A retry whose body passes the replay limit half way: it is repeated whole, or not at all.

use crate::world::{H1Server, World, pattern, route, seeds, settle};
use bytes::Bytes;
use proxy::cluster::Protocol;
use proxy::route::{RetryOn, RetryPolicy};

const LIMIT: usize = 32 << 10;

// spec: RT-3, RT-12
#[test]
fn a_body_is_repeated_whole_or_not_at_all() {
    seeds(|seed| async move {
        let world = World::new(seed);
        let accepted = world.cluster("up", Protocol::H1, 16 << 10);
        let mut route = route("up");
        route.replay_limit_bytes = Some(LIMIT as u64);
        let on = RetryOn::parse("5xx,reset,connect-failure").0;
        route.retry = Some(RetryPolicy { on, num_retries: 2, ..RetryPolicy::default() });
        let mut client = world.serve(Vec::new(), route, 1 << 20);
        let total = world.below(2 * LIMIT);
        let id = client.open(b"text/plain", None).await;
        let (mut sent, mut ended, mut servers, mut answers) = (0, false, Vec::<H1Server>::new(), 0);
        let fail_after = world.below(total + 1);
        let by_reset = world.below(2) == 0;
        let (mut failed_at, mut status) = (None, None);
        for step in 0.. {
            assert!(step < 20_000, "the request hangs at {sent} of {total}, {} tries", servers.len());
            if !ended && client.can_send(id) {
                let n = (1 + world.below(4 << 10)).min(total - sent);
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
            tokio::time::advance(std::time::Duration::from_millis(40)).await;
            while let Some(pipe) = accepted.borrow_mut().pop_front() {
                servers.push(H1Server::new(pipe));
            }
            let tries = servers.len();
            if let Some(server) = servers.last_mut().filter(|server| !server.closed) {
                server.turn();
                if tries == 1 && failed_at.is_none() && server.started() && server.body.len() >= fail_after {
                    failed_at = Some(sent);
                    // An answer before the request has ended closes the connection behind it.
                    if by_reset {
                        server.pipe.reset()
                    } else {
                        server.answer(503, "no")
                    }
                    server.closed = true;
                } else if tries > 1 && server.complete {
                    assert_eq!(server.body, pattern(0, total), "the second try is whole");
                    server.answer(200, "ok");
                    answers += 1;
                }
            }
            if let Some(seen) = client.head(id) {
                assert!(status.is_none(), "one final head");
                status = Some(seen);
            }
            if status.is_some() {
                break;
            }
        }
        let failed_at = failed_at.expect("the first try fails");
        match status.expect("answered") {
            Ok(200) => assert_eq!(answers, 1),
            // Not repeated: only where the body had gone over the limit by then (one piece may be under way).
            Ok(503) => assert!(failed_at + 2 * (4 << 10) > LIMIT, "{failed_at} bytes were within the limit"),
            other => panic!("unexpected {other:?}"),
        }
        assert!(servers.len() <= 2, "{} tries", servers.len());
        client.h2.release(id);
        client.turn();
        settle().await;
        world.assert_quiet();
    });
}
