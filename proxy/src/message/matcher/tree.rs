//! A tree of conditions on a request's headers, with what follows from them at its leaves (`xds.type.matcher.v3.Matcher`).

use super::StringMatcher;
use crate::message::RequestHead;
use foldhash::HashMap;

/// The tree.
#[derive(Debug)]
pub struct Tree<A> {
    pub(super) branches: Branches<A>,
    /// Where no branch leads to an action.
    pub(super) otherwise: Option<Next<A>>,
}

#[derive(Debug)]
pub(super) enum Branches<A> {
    /// Only what is otherwise.
    None,
    /// The first whose condition holds and that leads to an action.
    List(Box<[(Predicate, Next<A>)]>),
    /// By the whole value of a header.
    Exact(Box<[u8]>, HashMap<Box<[u8]>, Next<A>>),
    /// By the longest of these prefixes of a header's value; longer ones first.
    Prefix(Box<[u8]>, Box<[Prefixed<A>]>),
}

/// What follows from a prefix.
pub(super) type Prefixed<A> = (Box<[u8]>, Next<A>);

#[derive(Debug)]
pub(super) enum Next<A> {
    Action(A),
    Tree(Box<Tree<A>>),
}

/// A condition.
#[derive(Debug)]
pub(super) enum Predicate {
    /// On all values of a header, joined by commas; one that is missing meets none.
    Header(Box<[u8]>, StringMatcher),
    Any(Box<[Self]>),
    All(Box<[Self]>),
    Not(Box<Self>),
}

impl<A> Tree<A> {
    /// The action for a request, if there is one.
    pub fn find(&self, head: &RequestHead) -> Option<&A> {
        let found = match &self.branches {
            Branches::None => None,
            Branches::List(list) => {
                list.iter().filter(|(predicate, _)| predicate.holds(head)).find_map(|b| b.1.find(head))
            }
            Branches::Exact(name, map) => {
                head.headers.joined(name).and_then(|value| map.get(value.as_ref())).and_then(|next| next.find(head))
            }
            Branches::Prefix(name, prefixes) => head.headers.joined(name).and_then(|value| {
                prefixes.iter().filter(|(prefix, _)| value.starts_with(prefix)).find_map(|(_, next)| next.find(head))
            }),
        };
        found.or_else(|| self.otherwise.as_ref()?.find(head))
    }
}

impl<A> Next<A> {
    fn find(&self, head: &RequestHead) -> Option<&A> {
        match self {
            Self::Action(action) => Some(action),
            Self::Tree(tree) => tree.find(head),
        }
    }
}

impl Predicate {
    fn holds(&self, head: &RequestHead) -> bool {
        match self {
            Self::Header(name, wanted) => head.headers.joined(name).is_some_and(|value| wanted.matches(&value)),
            Self::Any(any) => any.iter().any(|one| one.holds(head)),
            Self::All(all) => all.iter().all(|one| one.holds(head)),
            Self::Not(not) => !not.holds(head),
        }
    }
}
