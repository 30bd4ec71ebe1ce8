//! A header list: one byte arena plus small records, in order, original case, recycled per thread.
//!
//! Design 7.1 sketched `SmallVec` records; plain vectors from a per-thread stock make the list 48 bytes to move
//! instead of 500 and allocate nothing once warm.

use super::Known;
use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

/// Where a text lies in the arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    at: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    /// Empty: the known name, in lower case.
    name: Span,
    value: Span,
    known: Known,
    never_index: bool,
}

/// A header name as it stands in a list.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    /// The name in its original case.
    pub bytes: &'a [u8],
    /// Which known name it is.
    pub known: Known,
}

/// A list of header fields in the order of arrival.
pub struct Headers {
    arena: Vec<u8>,
    fields: Vec<Field>,
}

/// Lists that a thread keeps for reuse.
const STOCK: usize = 256;
/// Arena capacity above which a list is not kept for reuse.
const STOCK_ARENA_BYTES: usize = 16 << 10;

thread_local! {
    static SPARE: RefCell<Vec<(Vec<u8>, Vec<Field>)>> = const { RefCell::new(Vec::new()) };
}

impl Headers {
    /// An empty list, from this thread's stock if there is one.
    pub fn new() -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        let (arena, fields) = spare.unwrap_or_else(|| (Vec::with_capacity(1024), Vec::with_capacity(24)));
        Self { arena, fields }
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Decoded size in bytes as HTTP/2 counts it: names, values and 32 per field (RFC 9113 section 6.5.2).
    pub fn size_bytes(&self) -> usize {
        self.fields.iter().map(|f| name(&self.arena, f).len() + f.value.len as usize + 32).sum()
    }

    /// Appends a field.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let known = Known::of(name);
        self.push(name, value, known, false);
    }

    /// Appends a field that must never enter a compression table (RFC 7541 section 7.1.3).
    /// Its known name the caller has already looked up.
    pub fn append_sensitive(&mut self, known: Known, name: &[u8], value: &[u8]) {
        self.push(name, value, known, true);
    }

    /// Appends a field with a known name, written in lower case.
    pub fn append_known(&mut self, known: Known, value: &[u8]) {
        let value = self.store(value);
        self.fields.push(Field { name: Span::default(), value, known, never_index: false });
    }

    /// Appends a field whose known name the caller has already looked up; `name` keeps its case.
    pub fn append_as(&mut self, known: Known, name: &[u8], value: &[u8]) {
        self.push(name, value, known, false);
    }

    fn push(&mut self, name: &[u8], value: &[u8], known: Known, never_index: bool) {
        let (name, value) = (self.store_name(known, name), self.store(value));
        self.fields.push(Field { name, value, known, never_index });
    }

    /// A known name is written down only where its case is not the usual one.
    #[inline]
    fn store_name(&mut self, known: Known, name: &[u8]) -> Span {
        if known.as_str().as_bytes() == name { Span::default() } else { self.store(name) }
    }

    /// The first value of a known name.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.fields.iter().find(|f| f.known == known).map(|f| self.text(f.value))
    }

    /// The first value of any name, in any case.
    pub fn get_name(&self, name: &[u8]) -> Option<&[u8]> {
        let known = Known::of(name);
        self.fields.iter().find(|f| is(&self.arena, f, known, name)).map(|f| self.text(f.value))
    }

    /// Whether the list holds a known name.
    pub fn contains(&self, known: Known) -> bool {
        self.fields.iter().any(|f| f.known == known)
    }

    /// All values of a name, in order.
    pub fn values<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        let known = Known::of(name);
        self.fields.iter().filter(move |f| is(&self.arena, f, known, name)).map(|f| self.text(f.value))
    }

    /// All values of a known name, in order.
    pub fn values_known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |f| f.known == known).map(|f| self.text(f.value))
    }

    /// The values of a name joined by a comma, as Envoy's matchers see a repeated header.
    pub fn joined<'a>(&'a self, name: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let mut values = self.values(name);
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        let mut out = [first, b",", second].concat();
        for value in values {
            out.push(b',');
            out.extend_from_slice(value);
        }
        Some(Cow::Owned(out))
    }

    /// Replaces all fields of a known name by one; keeps the place of the first.
    pub fn set(&mut self, known: Known, value: &[u8]) {
        self.set_as(known, known.as_str().as_bytes(), value);
    }

    /// Replaces all fields of a name by one; keeps the place of the first.
    pub fn set_name(&mut self, name: &[u8], value: &[u8]) {
        self.set_as(Known::of(name), name, value);
    }

    fn set_as(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let value = self.store(value);
        let mut found = false;
        let arena = &self.arena;
        self.fields.retain_mut(|field| {
            if !is(arena, field, known, name) {
                return true;
            }
            field.value = value;
            !std::mem::replace(&mut found, true)
        });
        if !found {
            let name = self.store_name(known, name);
            self.fields.push(Field { name, value, known, never_index: false });
        }
    }

    /// Removes all fields of a known name; says whether there was one.
    pub fn remove(&mut self, known: Known) -> bool {
        let before = self.fields.len();
        self.fields.retain(|f| f.known != known);
        self.fields.len() != before
    }

    /// Removes all fields of all these names, in one pass.
    pub fn remove_all(&mut self, names: &[Known]) {
        if self.fields.iter().any(|f| names.contains(&f.known)) {
            self.fields.retain(|f| !names.contains(&f.known));
        }
    }

    /// Where the first value of a known name lies.
    pub(super) fn span_of(&self, known: Known) -> Option<Span> {
        self.fields.iter().find(|f| f.known == known).map(|f| f.value)
    }

    /// Removes all fields of a name; says whether there was one.
    pub fn remove_name(&mut self, name: &[u8]) -> bool {
        let (known, before, arena) = (Known::of(name), self.fields.len(), &self.arena);
        self.fields.retain(|field| !is(arena, field, known, name));
        self.fields.len() != before
    }

    /// Keeps the fields for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Name<'_>, &[u8]) -> bool) {
        let arena = &self.arena;
        self.fields.retain(|f| keep(Name { bytes: name(arena, f), known: f.known }, slice(arena, f.value)));
    }

    /// All fields in order.
    pub fn iter(&self) -> HeadersIter<'_> {
        HeadersIter { headers: self, at: 0 }
    }

    /// Whether the field at `index` must never enter a compression table.
    pub fn never_index(&self, index: usize) -> bool {
        self.fields.get(index).is_some_and(|f| f.never_index)
    }

    /// Empties the list and keeps its memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.fields.clear();
    }

    #[inline]
    pub(super) fn store(&mut self, text: &[u8]) -> Span {
        let at = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
        self.arena.extend_from_slice(text);
        Span { at, len: u32::try_from(text.len()).unwrap_or(0) }
    }

    #[inline]
    pub(super) fn text(&self, span: Span) -> &[u8] {
        slice(&self.arena, span)
    }
}

/// The name of a field as it came.
#[inline]
fn name<'a>(arena: &'a [u8], field: &Field) -> &'a [u8] {
    match field.name.len {
        0 => field.known.as_str().as_bytes(),
        _ => slice(arena, field.name),
    }
}

#[inline]
fn is(arena: &[u8], field: &Field, known: Known, name: &[u8]) -> bool {
    field.known == known && (known != Known::Other || slice(arena, field.name).eq_ignore_ascii_case(name))
}

#[inline]
fn slice(arena: &[u8], span: Span) -> &[u8] {
    arena.get(span.at as usize..span.at as usize + span.len as usize).unwrap_or_default()
}

impl Drop for Headers {
    fn drop(&mut self) {
        if self.arena.capacity() == 0 || self.arena.capacity() > STOCK_ARENA_BYTES {
            return;
        }
        let (mut arena, mut fields) = (std::mem::take(&mut self.arena), std::mem::take(&mut self.fields));
        arena.clear();
        fields.clear();
        // At thread exit the stock may be gone already: then the memory is simply freed.
        if let Ok(()) = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < STOCK {
                spare.push((arena, fields));
            }
        }) {}
    }
}

impl Clone for Headers {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.arena.extend_from_slice(&self.arena);
        copy.fields.extend_from_slice(&self.fields);
        copy
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.iter().map(|(n, v)| (n.bytes.escape_ascii().to_string(), v.escape_ascii().to_string()));
        f.debug_map().entries(fields).finish()
    }
}

/// Iterator over the fields of a list.
#[derive(Debug)]
pub struct HeadersIter<'a> {
    headers: &'a Headers,
    at: usize,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (Name<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.headers.fields.get(self.at)?;
        self.at += 1;
        let bytes = name(&self.headers.arena, field);
        Some((Name { bytes, known: field.known }, self.headers.text(field.value)))
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (Name<'a>, &'a [u8]);
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_case_and_finds_in_any_case() {
        let mut h = Headers::new();
        h.append(b"X-MiXed", b"1");
        h.append(b"Host", b"a");
        h.append(b"x-mixed", b"2");
        assert_eq!(h.get(Known::Host), Some(&b"a"[..]));
        assert_eq!(h.joined(b"x-Mixed").as_deref(), Some(&b"1,2"[..]));
        let names: Vec<_> = h.iter().map(|(n, _)| n.bytes.to_vec()).collect();
        assert_eq!(names, [b"X-MiXed".to_vec(), b"Host".to_vec(), b"x-mixed".to_vec()]);
    }

    #[test]
    fn set_replaces_all_and_keeps_the_first_place() {
        let mut h = Headers::new();
        for (n, v) in [("a", "1"), ("B", "2"), ("b", "3"), ("c", "4")] {
            h.append(n.as_bytes(), v.as_bytes());
        }
        h.set_name(b"b", b"9");
        let all: Vec<_> = h.iter().map(|(n, v)| [n.bytes, v].concat()).collect();
        assert_eq!(all, [b"a1".to_vec(), b"B9".to_vec(), b"c4".to_vec()]);
        h.set_name(b"d", b"5");
        assert!(h.remove_name(b"A"));
        assert!(!h.remove_name(b"a"));
        h.set(Known::Host, b"x");
        h.set(Known::Host, b"y");
        assert_eq!(h.values_known(Known::Host).count(), 1);
        assert_eq!(h.get(Known::Host), Some(&b"y"[..]));
    }
}
