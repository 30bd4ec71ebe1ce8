//! An HTTP/2 upload to an HTTP/1 server that stalls: memory stays bounded, every byte arrives once.

use crate::world::{Client, H1Server, World, pattern, route, seeds, settle};
use bytes::Bytes;
use proxy::cluster::Protocol;

/// Receive buffer of the stalled server.
const SERVER_WINDOW: usize = 8 << 10;
/// What may be under way: the stream window, one piece in each hand, the server's window, frame and chunk overhead.
const BOUND: usize = (64 << 10) + 3 * (16 << 10) + SERVER_WINDOW + (8 << 10);

// spec: HP-5
#[test]
fn memory_is_bounded_and_every_byte_arrives_once() {
    seeds(|seed| async move {
        let world = World::new(seed);
        let accepted = world.cluster("up", Protocol::H1, SERVER_WINDOW);
        let mut client = world.serve(Vec::new(), route("up"), 1 << 20);
        let total = world.below(600 << 10);
        let id = client.open(b"application/octet-stream", None).await;
        let (mut sent, mut ended, mut server) = (0, false, None::<H1Server>);
        for step in 0.. {
            assert!(step < 20_000, "the upload hangs at {sent} of {total}");
            push(&world, &mut client, id, total, &mut sent, &mut ended);
            client.turn();
            settle().await;
            if server.is_none() {
                server = accepted.borrow_mut().pop_front().map(H1Server::new);
            }
            // The server reads in one turn of three.
            if let Some(server) = server.as_mut().filter(|_| world.below(3) == 0) {
                server.turn();
                assert!(!server.broken);
            }
            let taken = server.as_ref().map_or(0, |server| server.body.len());
            assert!(sent - taken <= BOUND, "{} bytes are held", sent - taken);
            if server.as_ref().is_some_and(|server| server.complete) {
                break;
            }
        }
        let mut server = server.expect("connected");
        assert_eq!(server.body, pattern(0, total));
        server.answer(200, "done");
        settle().await;
        client.turn();
        assert_eq!(client.head(id), Some(Ok(200)));
        let mut body = Vec::new();
        assert_eq!(client.body(id, &mut body), Some(Ok(())));
        assert_eq!(body, b"done");
        client.h2.release(id);
        settle().await;
        world.assert_quiet();
    });
}

#[expect(clippy::too_many_arguments, reason = "the state of one upload")]
fn push(world: &World, client: &mut Client, id: u32, total: usize, sent: &mut usize, ended: &mut bool) {
    if *ended || !client.can_send(id) {
        return;
    }
    let n = (1 + world.below(16 << 10)).min(total - *sent);
    if n > 0 {
        client.h2.send_data(id, Bytes::from(pattern(*sent, n)));
        *sent += n;
    } else {
        client.h2.send_end(id, None);
        *ended = true;
    }
}
