//! One limit split over clients that count by themselves (MX-98), sans-IO.
//!
//! A client reports what it was asked for; the limit is split in proportion to that. Every client keeps a little, so
//! that one that wakes up is not refused until the next split. Shares never add up to more than the limit.

use std::collections::BTreeMap;
use std::time::Duration;

/// How much of the limit is split evenly, in parts of 100.
const EVEN: u64 = 10;
/// How much of an older demand stays in the estimate, in parts of 100.
const MEMORY: u64 = 30;

/// A client.
pub type ClientId = u64;

/// One limit and who shares it.
#[derive(Debug)]
pub struct Shares {
    limit: u64,
    /// Demand of each, in requests per 1,000 seconds, and what it was told.
    clients: BTreeMap<ClientId, Client>,
}

#[derive(Debug, Default)]
struct Client {
    demand: u64,
    told: Option<u64>,
}

impl Shares {
    /// A limit that nobody shares yet.
    pub fn new(limit: u64) -> Self {
        Self { limit, clients: BTreeMap::new() }
    }

    /// Another limit.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Whether nobody shares it.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// A client was asked for so many requests in this time.
    pub fn report(&mut self, client: ClientId, requests: u64, elapsed: Duration) {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = requests.saturating_mul(1_000_000) / millis;
        let known = self.clients.entry(client).or_default();
        known.demand = match known.told {
            None => rate,
            Some(_) => (known.demand / 100).saturating_mul(MEMORY) + (rate / 100).saturating_mul(100 - MEMORY),
        };
    }

    /// What a client was last told.
    pub fn told(&self, client: ClientId) -> Option<u64> {
        self.clients.get(&client)?.told
    }

    /// A client has gone.
    pub fn leave(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// Splits anew. Gives the shares that are other ones than what the client was told.
    pub fn split(&mut self) -> Vec<(ClientId, u64)> {
        let count = u64::try_from(self.clients.len()).unwrap_or(u64::MAX).max(1);
        let even = self.limit * EVEN / 100 / count;
        let rest = self.limit - even * count;
        let all: u64 = self.clients.values().map(|client| client.demand).sum();
        let share = |demand: u64| match all {
            0 => rest / count,
            _ => u64::try_from(u128::from(rest) * u128::from(demand) / u128::from(all)).unwrap_or(rest),
        };
        let mut left = self.limit;
        let mut shares: Vec<(ClientId, u64)> = Vec::new();
        for (id, client) in &self.clients {
            let own = even + share(client.demand);
            left -= own.min(left);
            shares.push((*id, own));
        }
        // What rounding left goes to those who want most, one each.
        let mut eager: Vec<usize> = (0..shares.len()).collect();
        let demand =
            |at: &usize| shares.get(*at).and_then(|(id, _)| self.clients.get(id)).map_or(0, |client| client.demand);
        eager.sort_by_key(|at| std::cmp::Reverse(demand(at)));
        for at in eager.into_iter().cycle().take(usize::try_from(left).unwrap_or_default().min(shares.len())) {
            if let Some((_, share)) = shares.get_mut(at) {
                *share += 1;
            }
        }
        shares.retain(|(id, share)| self.clients.get(id).is_some_and(|client| client.told != Some(*share)));
        for (id, share) in &shares {
            if let Some(client) = self.clients.get_mut(id) {
                client.told = Some(*share);
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    // spec: MX-98
    #[test]
    fn a_limit_is_split_by_use_and_what_a_client_leaves_goes_to_the_others() {
        let mut shares = Shares::new(100);
        shares.report(1, 10, SECOND);
        assert_eq!(shares.split(), [(1, 100)], "alone it has all");
        shares.report(2, 30, SECOND);
        let split = shares.split();
        assert_eq!(split.iter().map(|(_, share)| share).sum::<u64>(), 100);
        assert_eq!(split, [(1, 27), (2, 73)]);
        assert!(shares.split().is_empty(), "nobody is told the same twice");
        shares.leave(2);
        assert_eq!(shares.split(), [(1, 100)]);
    }

    #[test]
    fn an_idle_client_keeps_a_little() {
        let mut shares = Shares::new(100);
        shares.report(1, 1_000, SECOND);
        shares.report(2, 0, SECOND);
        assert_eq!(shares.split(), [(1, 95), (2, 5)]);
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_limit(limit in 0_u64..1_000_000, demands in prop::collection::vec(0_u64..u64::MAX / 2_000_000, 1..20)) {
            let mut shares = Shares::new(limit);
            for (client, demand) in (0..).zip(&demands) {
                shares.report(client, *demand, SECOND);
            }
            let sum: u64 = shares.split().iter().map(|(_, share)| share).sum();
            prop_assert!(sum <= limit, "{sum} of {limit}");
            prop_assert!(sum + demands.len() as u64 >= limit, "{sum} of {limit}");
        }
    }
}
