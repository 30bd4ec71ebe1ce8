//! Counters in Redis, shared by all mixers: one atomic script per question, by the clock of Redis.

use super::exhausted::Exhausted;
use super::{Ask, CounterError, DEDUPLICATION, Grant, MAX_KEY, STORE_TIMEOUT, Window};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Script};
use std::sync::Arc;
use std::time::Duration;

/// What the names of our keys begin with.
const PREFIX: &str = "ferromesh:quota:";
/// The longest wait before Redis is tried again.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The counters' door. The connection is made when it is first needed, and again when it is lost.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    script: Arc<Script>,
    exhausted: Arc<Exhausted>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}

impl Redis {
    /// Counters at an address: `host:port` as Istio writes it, or `redis://…`. Needs a runtime of tokio.
    ///
    /// # Errors
    /// Where the address is malformed.
    pub fn new(address: &str) -> Result<Self, String> {
        let url = if address.contains("://") { address.to_owned() } else { format!("redis://{address}") };
        let client = Client::open(url).map_err(|error| format!("{address}: {error}; write host:port"))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(STORE_TIMEOUT))
            .set_response_timeout(Some(STORE_TIMEOUT))
            .set_number_of_retries(1)
            .set_max_delay(LONGEST_WAIT);
        let connection = client.get_connection_manager_lazy(config).map_err(|error| error.to_string())?;
        Ok(Self { connection, script: Arc::new(Script::new(include_str!("take.lua"))), exhausted: Arc::default() })
    }

    /// Asks a counter.
    ///
    /// # Errors
    /// Where Redis does not answer in time.
    pub async fn take(&self, ask: &Ask) -> Result<Grant, CounterError> {
        // Only a window that ends by the clock stays used up until it ends.
        let aligned = matches!(ask.window, Window::Aligned(_)) && ask.dedup.is_none();
        if let Some(until_reset) = self.exhausted.left(&ask.key).filter(|_| aligned && ask.amount > 0) {
            return Ok(Grant { granted: 0, remaining: 0, until_reset });
        }
        let grant = self.ask(ask).await?;
        if aligned && grant.granted == 0 && grant.remaining == 0 && ask.amount > 0 {
            self.exhausted.remember(&ask.key, grant.until_reset);
        } else if ask.amount < 0 {
            self.exhausted.forget(&ask.key);
        }
        Ok(grant)
    }

    async fn ask(&self, ask: &Ask) -> Result<Grant, CounterError> {
        let zero = Duration::ZERO;
        let (kind, length, bucket) = match ask.window {
            Window::Forever => ("forever", zero, zero),
            Window::Fixed(length) => ("fixed", length, zero),
            Window::Aligned(length) => ("aligned", length, zero),
            Window::Rolling(length, bucket) => ("rolling", length, bucket),
        };
        let id = ask.dedup.as_deref().unwrap_or_default();
        if id.len() > MAX_KEY {
            return Err(CounterError::LongKey);
        }
        // The braces keep both keys on one node of a cluster.
        let counter = format!("{PREFIX}{{{}}}", ask.key);
        let mut call = self.script.key(&counter);
        call.key(format!("{counter}:{id}"));
        call.arg(ask.limit).arg(kind).arg(millis(length)).arg(millis(bucket)).arg(ask.amount);
        call.arg(u8::from(ask.best_effort))
            .arg(ask.ahead.map_or(-1, |welcome| i64::try_from(welcome).unwrap_or(i64::MAX)))
            .arg(id)
            .arg(millis(DEDUPLICATION));
        let mut connection = self.connection.clone();
        let asked = async {
            match call.invoke_async::<(i64, i64, i64)>(&mut connection).await {
                // Redis was restarted since the last question: the connection is made anew. Should it have counted
                // before it went, what it counted went with it or counts once too much.
                Err(error) if error.is_connection_dropped() => call.invoke_async(&mut connection).await,
                answer => answer,
            }
        };
        let (granted, remaining, reset) = match tokio::time::timeout(STORE_TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(CounterError::Store(error.to_string())),
            Err(_late) => return Err(CounterError::Store(format!("no answer within {STORE_TIMEOUT:?}"))),
        };
        Ok(Grant {
            granted: u64::try_from(granted).unwrap_or_default(),
            remaining: u64::try_from(remaining).unwrap_or_default(),
            until_reset: u64::try_from(reset).map_or(Duration::MAX, Duration::from_millis),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
