//! A configured adapter: `handler`, or an object of the old kind per adapter.

use super::code::Code;
use super::decision::{Answer, Direct};
use super::deny::Denier;
use super::instance::{Instance, Template, texts};
use super::limits::{Charge, Limits};
use super::list::List;
use super::object::Object;
use super::prometheus::Prometheus;
use super::stdio::Stdio;
use crate::expression::eval::{Failure, Reader};
use crate::yaml::{Fault, Node, Place};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Kinds of objects that are handlers: the general one, and one per adapter (MX-51).
pub const KINDS: &[&str] =
    &["handler", "denier", "listchecker", "memquota", "redisquota", "prometheus", "stdio", "kubernetesenv", "noop"];

/// A configured adapter.
#[derive(Debug)]
pub struct Handler {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of its adapter.
    pub kind: String,
    /// What it does.
    pub adapter: Adapter,
    /// As it was written: the same text keeps the handler and all it has counted.
    pub spec: Node,
    /// How often it was asked.
    pub asked: AtomicU64,
    /// How often it refused.
    pub refused: AtomicU64,
}

/// What a handler does.
#[derive(Debug)]
pub enum Adapter {
    /// Refuses.
    Denier(Denier),
    /// Looks a value up in a list.
    List(List),
    /// Counts.
    Limits(Limits),
    /// Measures.
    Prometheus(Prometheus),
    /// Writes lines.
    Stdio(Stdio),
    /// Looks a key up in a table, and puts out what it finds.
    KeyVal(BTreeMap<String, String>),
    /// Nothing: mixer does it by itself, or nobody wants it done.
    Nothing,
}

impl Handler {
    /// Reads an object (MX-46, MX-51).
    ///
    /// # Errors
    /// An unknown adapter or field, or a value out of range.
    pub fn parse(object: &Object) -> Result<Self, Fault> {
        let spec = Place::new(&object.spec, "spec");
        let owner = format!("{}.{}", object.key.name, object.key.namespace);
        let (kind, adapter) = if object.key.kind == "handler" {
            let mut fields = spec.fields()?;
            let name = fields
                .get("compiledAdapter")
                .or_else(|| fields.get("adapter"))
                .ok_or_else(|| spec.fault("name an adapter: compiledAdapter, such as denier"))?;
            // The adapters that run in processes of their own elsewhere are built in here.
            fields.get("connection");
            let empty = Node::empty(object.spec.line);
            let params = fields.get("params").unwrap_or_else(|| Place::new(&empty, "spec.params"));
            fields.done()?;
            let kind = name.text()?;
            (kind.clone(), parse_adapter(&kind, &name, &params, owner)?)
        } else {
            (object.key.kind.clone(), parse_adapter(&object.key.kind, &spec, &spec, owner)?)
        };
        Ok(Self {
            name: object.key.name.clone(),
            namespace: object.key.namespace.clone(),
            kind,
            adapter,
            spec: object.spec.clone(),
            asked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// `name.namespace`, as messages have it.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// Whether it takes instances of this template.
    ///
    /// # Errors
    /// Why not.
    pub fn takes(&self, instance: &Instance) -> Result<(), String> {
        let fits = match (&self.adapter, &instance.template) {
            (Adapter::Nothing, _) => true,
            (Adapter::Denier(_), template) => {
                matches!(template, Template::CheckNothing | Template::ListEntry(_) | Template::Quota(_))
            }
            (Adapter::List(_), template) => matches!(template, Template::ListEntry(_)),
            (Adapter::Limits(limits), Template::Quota(_)) => return limits.takes(instance),
            (Adapter::Limits(_), _) => false,
            (Adapter::Prometheus(prometheus), Template::Metric { .. }) => return prometheus.takes(instance),
            (Adapter::Prometheus(_), _) => false,
            (Adapter::Stdio(_), template) => matches!(template, Template::LogEntry { .. } | Template::Metric { .. }),
            (Adapter::KeyVal(_), template) => matches!(template, Template::KeyVal(_)),
        };
        match fits {
            true => Ok(()),
            false => Err(format!("the adapter {} does not take the template {}", self.kind, instance.template.name())),
        }
    }

    /// Counts an answer of its own.
    pub fn count(&self, answer: &Answer) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if answer.code != Code::OK {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The last thing that went wrong with it.
    pub fn last_error(&self) -> Option<String> {
        match &self.adapter {
            Adapter::List(list) => list.last_error(),
            Adapter::Prometheus(prometheus) => prometheus.last_error(),
            Adapter::Stdio(stdio) => stdio.last_error(),
            _ => None,
        }
    }

    /// Asks it before a request.
    pub fn check<'a>(&'a self, template: &'a Template, reader: &mut Reader<'a, '_>) -> Answer {
        match (&self.adapter, template) {
            (Adapter::Denier(denier), _) => denier.check(),
            (Adapter::List(list), Template::ListEntry(value)) => match value.eval(reader) {
                Ok(value) => list.check(&value.to_string()),
                Err(failure) => unable(&failure),
            },
            (Adapter::KeyVal(table), Template::KeyVal(key)) => match key.eval(reader) {
                Ok(key) => look_up(table, &key.to_string()),
                Err(failure) => unable(&failure),
            },
            _ => Answer::ok(super::decision::UNANSWERED_FOR, None),
        }
    }

    /// Tells it after a request.
    ///
    /// # Errors
    /// Where an expression of the instance has no value: the instance is dropped (MX-56).
    pub fn report<'a>(&'a self, instance: &'a Instance, reader: &mut Reader<'a, '_>) -> Result<(), Failure> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match &self.adapter {
            Adapter::Prometheus(prometheus) => prometheus.report(instance, reader),
            Adapter::Stdio(stdio) => stdio.report(instance, reader),
            _ => Ok(()),
        }
    }

    /// Asks it for a charge.
    pub async fn charge<'a>(&'a self, instance: &'a Instance, reader: Reader<'a, '_>, charge: Charge<'_>) -> Answer {
        let mut reader = reader;
        match (&self.adapter, &instance.template) {
            (Adapter::Denier(denier), _) => denier.check(),
            (Adapter::Limits(limits), Template::Quota(dimensions)) => match texts(dimensions, &mut reader) {
                Ok(dimensions) => limits.check(instance, &dimensions, charge).await,
                Err(failure) => unable(&failure),
            },
            _ => Answer::ok(super::decision::UNANSWERED_FOR, None),
        }
    }
}

/// An instance that cannot be made denies: a list that lets through whoever brings no entry would be no list.
pub fn unable(failure: &Failure) -> Answer {
    Answer::of(Code::INVALID_ARGUMENT, failure.to_string(), Duration::from_secs(1), None)
}

fn look_up(table: &BTreeMap<String, String>, key: &str) -> Answer {
    let valid_for = super::decision::UNANSWERED_FOR;
    match table.get(key) {
        Some(value) => Answer { output: Some(value.clone()), ..Answer::ok(valid_for, None) },
        None => {
            let body = format!("<error_detail>key {key:?} not found</error_detail>");
            let direct = Some(Direct { body, ..Direct::default() });
            Answer { direct, ..Answer::of(Code::NOT_FOUND, format!("key {key:?} not found"), valid_for, None) }
        }
    }
}

fn parse_adapter(kind: &str, at: &Place<'_>, params: &Place<'_>, owner: String) -> Result<Adapter, Fault> {
    Ok(match kind {
        "denier" => Adapter::Denier(Denier::parse(params)?),
        "listchecker" => Adapter::List(List::parse(params)?),
        "prometheus" => Adapter::Prometheus(Prometheus::parse(params)?),
        "stdio" => Adapter::Stdio(Stdio::parse(params)?),
        "memquota" => Adapter::Limits(Limits::memory(params, owner)?),
        "redisquota" => Adapter::Limits(Limits::redis(params, owner)?),
        "keyval" => {
            let mut fields = params.fields()?;
            let entries = fields.need("table")?.entries()?;
            let table = entries.into_iter().map(|(key, value)| Ok((key.to_owned(), value.text()?)));
            let adapter = Adapter::KeyVal(table.collect::<Result<_, Fault>>()?);
            fields.done()?;
            adapter
        }
        // Pods are joined by mixer itself (MX-106), whatever the handler says.
        "kubernetesenv" | "noop" => Adapter::Nothing,
        other => {
            let known = "denier, listchecker, memquota, redisquota, prometheus, stdio, kubernetesenv, keyval, noop";
            return Err(at.fault(format!("unknown adapter {other}; known are {known}")));
        }
    })
}
