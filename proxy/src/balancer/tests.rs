use super::*;
use crate::endpoint::{Address, Health, Priority};
use std::collections::HashMap;

fn endpoint(port: u16, weight: u32, health: Health) -> Arc<Endpoint> {
    let address = Address::Ip(([127, 0, 0, 1], port).into());
    Arc::new(Endpoint { weight, health, ..Endpoint::at(address) })
}

fn hosts(priorities: &[&[Arc<Endpoint>]]) -> HostSet {
    let priorities = priorities.iter().map(|all| Priority { all: all.to_vec(), locality_weights: vec![] }).collect();
    HostSet { priorities, overprovisioning_percent: 140 }
}

fn count(balancer: &mut Balancer, n: usize) -> HashMap<String, usize> {
    let env = Env::seeded(7);
    let mut counts = HashMap::new();
    for _ in 0..n {
        let picked = balancer.pick(&env, Wish::default()).expect("an endpoint");
        *counts.entry(picked.address.to_string()).or_default() += 1;
    }
    counts
}

fn healthy(port: u16) -> Arc<Endpoint> {
    endpoint(port, 1, Health::Healthy)
}

// spec: LB-2, DR-9
#[test]
fn round_robin_takes_turns_and_respects_weights() {
    let env = Env::seeded(1);
    let set = hosts(&[&[healthy(1), healthy(2), healthy(3)]]);
    let counts = count(&mut Balancer::new(Policy::RoundRobin, 50, &set, &env), 300);
    assert!(counts.values().all(|n| *n == 100), "{counts:?}");
    let set = hosts(&[&[endpoint(1, 3, Health::Healthy), healthy(2)]]);
    let counts = count(&mut Balancer::new(Policy::RoundRobin, 50, &set, &env), 400);
    assert_eq!((counts["127.0.0.1:1"], counts["127.0.0.1:2"]), (300, 100));
}

// spec: LB-2
#[test]
fn turns_begin_at_a_random_endpoint() {
    let set = hosts(&[&[healthy(1), healthy(2), healthy(3), healthy(4)]]);
    let first = |seed| {
        let env = Env::seeded(seed);
        let mut balancer = Balancer::new(Policy::RoundRobin, 50, &set, &env);
        balancer.pick(&env, Wish::default()).expect("an endpoint").address.to_string()
    };
    let firsts: std::collections::BTreeSet<String> = (0..64).map(first).collect();
    assert_eq!(firsts.len(), 4, "{firsts:?}");
}

// spec: LB-1
#[test]
fn least_request_prefers_the_idle_endpoint() {
    let env = Env::seeded(1);
    let (busy, idle) = (healthy(1), healthy(2));
    busy.shared.active.store(10, Ordering::Relaxed);
    let set = hosts(&[&[busy, idle]]);
    let counts = count(&mut Balancer::new(Policy::LeastRequest { choices: 2 }, 50, &set, &env), 1000);
    // Only when both choices fall on the busy one does it win: a quarter of the picks.
    assert!((200..300).contains(&counts["127.0.0.1:1"]), "{counts:?}");
    let heavy = endpoint(1, 4, Health::Healthy);
    heavy.shared.active.store(3, Ordering::Relaxed);
    let set = hosts(&[&[heavy, healthy(2)]]);
    let counts = count(&mut Balancer::new(Policy::LeastRequest { choices: 2 }, 50, &set, &env), 1000);
    assert!((450..560).contains(&counts["127.0.0.1:1"]), "{counts:?}");
}

// spec: LB-3
#[test]
fn random_follows_weights() {
    let env = Env::seeded(1);
    let set = hosts(&[&[endpoint(1, 3, Health::Healthy), healthy(2)]]);
    let counts = count(&mut Balancer::new(Policy::Random, 50, &set, &env), 4000);
    assert!((2850..3150).contains(&counts["127.0.0.1:1"]), "{counts:?}");
}

// spec: LB-8
#[test]
fn load_spills_to_the_next_priority_when_health_falls() {
    let env = Env::seeded(1);
    let bad = |port| endpoint(port, 1, Health::Unhealthy);
    // 3 of 4 healthy: 75 % x 1.4 > 100 %, so nothing spills.
    let set = hosts(&[&[healthy(1), healthy(2), healthy(3), bad(4)], &[healthy(9)]]);
    assert!(!count(&mut Balancer::new(Policy::RoundRobin, 50, &set, &env), 500).contains_key("127.0.0.1:9"));
    // 1 of 2 healthy: 70 % stay, 30 % spill.
    let set = hosts(&[&[healthy(1), bad(2)], &[healthy(9)]]);
    let counts = count(&mut Balancer::new(Policy::RoundRobin, 50, &set, &env), 4000);
    assert!((1080..1320).contains(&counts["127.0.0.1:9"]), "{counts:?}");
    let set = hosts(&[&[bad(1)], &[healthy(9)]]);
    assert_eq!(count(&mut Balancer::new(Policy::RoundRobin, 50, &set, &env), 10)["127.0.0.1:9"], 10);
}

// spec: LB-7, DR-32, LR-1
#[test]
fn panic_uses_all_endpoints_only_where_it_is_enabled() {
    let env = Env::seeded(1);
    let bad = |port| endpoint(port, 1, Health::Unhealthy);
    let set = hosts(&[&[healthy(1), bad(2), bad(3)]]);
    assert_eq!(count(&mut Balancer::new(Policy::RoundRobin, 50, &set, &env), 300).len(), 3);
    assert_eq!(count(&mut Balancer::new(Policy::RoundRobin, 0, &set, &env), 300).len(), 1);
    let none = hosts(&[&[bad(1)]]);
    assert!(Balancer::new(Policy::RoundRobin, 0, &none, &env).pick(&env, Wish::default()).is_none());
    let draining = hosts(&[&[endpoint(1, 1, Health::Draining)]]);
    assert!(Balancer::new(Policy::RoundRobin, 50, &draining, &env).pick(&env, Wish::default()).is_none());
}

// spec: LB-13
#[test]
fn an_ejected_endpoint_is_skipped_until_its_time_is_over() {
    let env = Env::seeded(1);
    let ejected = healthy(1);
    ejected.shared.ejected_until.store(500, Ordering::Release);
    let set = hosts(&[&[ejected, healthy(2)]]);
    let mut balancer = Balancer::new(Policy::RoundRobin, 0, &set, &env);
    assert_eq!(count(&mut balancer, 10).len(), 1);
    balancer.refresh(&set, 501);
    assert_eq!(count(&mut balancer, 10).len(), 2);
}

// spec: RT-7, VS-30
#[test]
fn a_retry_avoids_endpoints_that_were_tried() {
    let env = Env::seeded(1);
    let (a, b) = (healthy(1), healthy(2));
    let set = hosts(&[&[Arc::clone(&a), b]]);
    let mut balancer = Balancer::new(Policy::RoundRobin, 0, &set, &env);
    for _ in 0..50 {
        let wish = Wish { tried: &[Arc::clone(&a)], avoid_attempts: 5, ..Wish::default() };
        assert_eq!(balancer.pick(&env, wish).expect("one").address.to_string(), "127.0.0.1:2");
    }
}

// spec: XT-9
#[test]
fn a_retry_leaves_priorities_as_often_as_it_is_told() {
    let env = Env::seeded(1);
    let all = [healthy(1), healthy(2), healthy(3)];
    let set = hosts(&[&[Arc::clone(&all[0])], &[Arc::clone(&all[1])], &[Arc::clone(&all[2])]]);
    let mut balancer = Balancer::new(Policy::RoundRobin, 0, &set, &env);
    for (every, expected) in [(None, [1, 1, 1, 1, 1]), (Some(1), [1, 2, 3, 1, 2]), (Some(2), [1, 1, 2, 2, 3])] {
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        for _ in 0..5 {
            let wish = Wish { tried: &tried, avoid_attempts: 0, leave_priorities_every: every };
            let picked = balancer.pick(&env, wish).expect("one");
            tried.push(picked);
        }
        let addresses = expected.map(|port| format!("127.0.0.1:{port}"));
        assert_eq!(tried.iter().map(|e| e.address.to_string()).collect::<Vec<_>>(), addresses, "{every:?}");
    }
}
