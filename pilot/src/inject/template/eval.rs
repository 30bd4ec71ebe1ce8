//! A tree of nodes and data → text.

use super::functions;
use super::parse::{Base, Command, Node, NodeKind, Operand, Parsed, Pipeline};
use serde_json::Value;

/// Most nodes that one rendering may visit.
const MAX_STEPS: usize = 200_000;
/// Largest text that a template may give.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// How deep templates may call each other.
const MAX_CALLS: usize = 32;

/// The text that a template gives for these data.
pub(super) fn render(parsed: &Parsed, data: &Value) -> Result<String, String> {
    let mut run = Run { parsed, output: String::new(), steps: 0, calls: 0 };
    let mut variables = vec![(String::new(), data.clone())];
    run.nodes(&parsed.nodes, data, &mut variables)?;
    Ok(run.output)
}

/// Variables in the order of their declaration; the name of `$` is empty.
type Variables = Vec<(String, Value)>;

struct Run<'a> {
    parsed: &'a Parsed,
    output: String,
    steps: usize,
    calls: usize,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value, variables: &mut Variables) -> Result<(), String> {
        let outer = variables.len();
        for node in nodes {
            self.steps += 1;
            let done = if self.steps > MAX_STEPS {
                Err(format!("it takes more than {MAX_STEPS} steps"))
            } else {
                self.node(&node.kind, dot, variables)
            };
            done.map_err(|why| if why.starts_with("line ") { why } else { format!("line {}: {why}", node.line) })?;
        }
        variables.truncate(outer);
        Ok(())
    }

    fn node(&mut self, kind: &NodeKind, dot: &Value, variables: &mut Variables) -> Result<(), String> {
        match kind {
            NodeKind::Text(text) => self.push(text),
            NodeKind::Output(pipeline) => {
                let value = self.pipeline(pipeline, dot, variables)?;
                self.push(&functions::printed(&value))
            }
            NodeKind::Set { name, value, declares } => {
                let value = self.pipeline(value, dot, variables)?;
                set(variables, name, value, *declares)
            }
            NodeKind::If { condition, then, or } => {
                let condition = self.pipeline(condition, dot, variables)?;
                self.nodes(if functions::is_true(&condition) { then } else { or }, dot, variables)
            }
            NodeKind::With { value, variable, then, or } => {
                let value = self.pipeline(value, dot, variables)?;
                if !functions::is_true(&value) {
                    return self.nodes(or, dot, variables);
                }
                self.scoped(then, &value, variable.iter().map(|name| (name.clone(), value.clone())), variables)
            }
            NodeKind::Range { over, key, item, body, or } => {
                let over = self.pipeline(over, dot, variables)?;
                let pairs = items(&over)?;
                if pairs.is_empty() {
                    return self.nodes(or, dot, variables);
                }
                for (index, value) in pairs {
                    let names = [(key, index), (item, value.clone())];
                    let named = names.into_iter().filter_map(|(name, value)| Some((name.clone()?, value)));
                    self.scoped(body, &value, named, variables)?;
                }
                Ok(())
            }
            NodeKind::Call { name, with } => {
                let data = with.as_ref().map(|with| self.pipeline(with, dot, variables)).transpose()?;
                self.call(name, &data.unwrap_or(Value::Null))
            }
        }
    }

    fn call(&mut self, name: &str, data: &Value) -> Result<(), String> {
        let nodes = self.parsed.defined.get(name).ok_or_else(|| format!("no template {name:?} is defined"))?;
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err("templates call each other too deep".to_owned());
        }
        self.nodes(nodes, data, &mut vec![(String::new(), data.clone())])?;
        self.calls -= 1;
        Ok(())
    }

    fn scoped(
        &mut self,
        nodes: &[Node],
        dot: &Value,
        named: impl Iterator<Item = (String, Value)>,
        variables: &mut Variables,
    ) -> Result<(), String> {
        let outer = variables.len();
        variables.extend(named);
        let done = self.nodes(nodes, dot, variables);
        variables.truncate(outer);
        done
    }

    fn push(&mut self, text: &str) -> Result<(), String> {
        self.output.push_str(text);
        if self.output.len() > MAX_OUTPUT_BYTES {
            return Err(format!("it gives more than {MAX_OUTPUT_BYTES} bytes"));
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value, variables: &Variables) -> Result<Value, String> {
        let mut last: Option<Value> = None;
        for command in pipeline {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!("it takes more than {MAX_STEPS} steps"));
            }
            last = Some(match command {
                Command::Value(operand) => self.operand(operand, dot, variables)?,
                Command::Call { function, arguments } => self.function(function, arguments, last, (dot, variables))?,
            });
        }
        Ok(last.unwrap_or(Value::Null))
    }

    fn function(
        &mut self,
        name: &str,
        arguments: &[Operand],
        piped: Option<Value>,
        (dot, variables): (&Value, &Variables),
    ) -> Result<Value, String> {
        // `and` and `or` look only at what decides.
        if name == "and" || name == "or" {
            let mut last = Value::Null;
            for argument in arguments {
                last = self.operand(argument, dot, variables)?;
                if functions::is_true(&last) == (name == "or") {
                    return Ok(last);
                }
            }
            return Ok(piped.unwrap_or(last));
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(argument, dot, variables)?);
        }
        values.extend(piped);
        functions::call(name, &values).map_err(|why| format!("{name}: {why}"))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value, variables: &Variables) -> Result<Value, String> {
        let mut value = match &operand.base {
            Base::Dot => fields(dot, &operand.fields)?,
            Base::Variable(name) => {
                let found = variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| format!("there is no variable ${name}"))?;
                fields(value, &operand.fields)?
            }
            Base::Literal(value) => return fields(value, &operand.fields),
            Base::Group(pipeline) => {
                let value = self.pipeline(pipeline, dot, variables)?;
                fields(&value, &operand.fields)?
            }
            Base::Call(name) => functions::call(name, &[]).map_err(|why| format!("{name}: {why}"))?,
        };
        Ok(value.take())
    }
}

fn set(variables: &mut Variables, name: &str, value: Value, declares: bool) -> Result<(), String> {
    if declares {
        variables.push((name.to_owned(), value));
        return Ok(());
    }
    let known = variables.iter_mut().rev().find(|(known, _)| known == name);
    let (_, known) = known.ok_or_else(|| format!("there is no variable ${name}"))?;
    *known = value;
    Ok(())
}

fn items(over: &Value) -> Result<Vec<(Value, Value)>, String> {
    match over {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.iter().enumerate().map(|(at, item)| (at.into(), item.clone())).collect()),
        Value::Object(fields) => {
            let mut pairs: Vec<_> = fields.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect();
            pairs.sort_by(|(a, _): &(Value, Value), (b, _)| a.as_str().cmp(&b.as_str()));
            Ok(pairs)
        }
        other => Err(format!("range needs a list or a map, not {other}")),
    }
}

/// Fields of a value, by Go's name or by that of JSON: `Containers` is `containers`. What is not there is nothing.
/// `GetX` is X, and `GetValue` and `String` of a scalar are the scalar, as in Go's structures.
fn fields(value: &Value, names: &[String]) -> Result<Value, String> {
    let mut value = value;
    for name in names {
        let getter = name.strip_prefix("Get").filter(|rest| rest.chars().next().is_some_and(char::is_uppercase));
        value = match value {
            Value::Object(fields) => {
                let by_name = |wanted: &str| {
                    let exact = fields.get(wanted);
                    exact
                        .or_else(|| fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(wanted)).map(|(_, v)| v))
                };
                by_name(name).or_else(|| by_name(getter?)).unwrap_or(&Value::Null)
            }
            Value::Null => &Value::Null,
            scalar if name == "String" || name == "GetValue" => scalar,
            other => return Err(format!("{other} has no field {name}")),
        };
    }
    Ok(value.clone())
}
