//! A value that many hold, compared by its revision and not by its content: the part of a cache key.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The next revision; written by whoever interns a value.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// An interned value. Two are equal when they are the same revision.
#[derive(Debug)]
pub struct Shared<T: ?Sized> {
    revision: u64,
    value: Arc<T>,
}

impl<T> Shared<T> {
    /// Interns a new value under a new revision.
    pub fn new(value: T) -> Self {
        Self { revision: NEXT.fetch_add(1, Ordering::Relaxed), value: Arc::new(value) }
    }

    /// Keeps `old` where it says the same, so that what rests on it stays valid.
    pub fn renew(old: Option<&Self>, value: T) -> Self
    where
        T: PartialEq,
    {
        match old {
            Some(old) if *old.value == value => old.clone(),
            _ => Self::new(value),
        }
    }
}

impl<T: ?Sized> Shared<T> {
    /// The revision: unique in this process.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { revision: self.revision, value: self.value.clone() }
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl<T: ?Sized> Eq for Shared<T> {}

impl<T: ?Sized> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.revision.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_value_keeps_its_revision() {
        let one = Shared::new(String::from("a"));
        assert_eq!(Shared::renew(Some(&one), "a".into()), one);
        assert_ne!(Shared::renew(Some(&one), "b".into()), one);
    }
}
