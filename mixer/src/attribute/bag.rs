//! The values that are known of one request.

use super::{AttributeId, Value};

/// Values by attribute; what is not set is absent.
#[derive(Debug, Clone, Default)]
pub struct Bag<'a> {
    values: Vec<Option<Value<'a>>>,
}

impl<'a> Bag<'a> {
    /// Nothing known yet; there is room for `attributes` of them.
    pub fn new(attributes: usize) -> Self {
        let mut values = Vec::new();
        values.resize_with(attributes, || None);
        Self { values }
    }

    /// Sets a value.
    pub fn set(&mut self, id: AttributeId, value: Value<'a>) {
        if id.index() >= self.values.len() {
            self.values.resize_with(id.index() + 1, || None);
        }
        if let Some(place) = self.values.get_mut(id.index()) {
            *place = Some(value);
        }
    }

    /// Sets a text, unless it is empty: an empty text of the wire is an absent attribute.
    pub fn set_text(&mut self, id: AttributeId, text: &'a str) {
        if !text.is_empty() {
            self.set(id, Value::text(text));
        }
    }

    /// The value, if it is known.
    pub fn get(&self, id: AttributeId) -> Option<&Value<'a>> {
        self.values.get(id.index())?.as_ref()
    }
}
