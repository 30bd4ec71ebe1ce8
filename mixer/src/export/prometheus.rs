//! Istio's families in Prometheus' text format, in pieces, so that many series need no large buffer.

use crate::report::family::{Family, Kind};
use crate::report::point::Value;
use crate::report::series::{Labels, Series};
use std::fmt::Write as _;

/// Series that one piece of text holds at most.
const PIECE: usize = 256;

/// The text of all series, piece by piece.
pub fn pieces(mut series: Vec<Series>) -> impl Iterator<Item = String> {
    series.sort_by_key(|series| series.family);
    let mut rest = series.into_iter().peekable();
    let mut family: Option<Family> = None;
    std::iter::from_fn(move || {
        let mut out = String::new();
        for _ in 0..PIECE {
            let Some(series) = rest.next() else { break };
            if family != Some(series.family) {
                family = Some(series.family);
                head(series.family, &mut out);
            }
            one(&series, &mut out);
        }
        (!out.is_empty()).then_some(out)
    })
}

fn head(family: Family, out: &mut String) {
    let kind = match family.kind() {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let name = family.name();
    write(out, format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", family.help()));
}

fn one(series: &Series, out: &mut String) {
    let name = series.family.name();
    let labels = labels(&series.labels);
    match &series.total {
        Value::Number(total) => write(out, format_args!("{name}{{{labels}}} {total}\n")),
        Value::Histogram(counts, sum, bounds) => {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut upto = 0;
            for (index, count) in counts.iter().enumerate() {
                upto += count;
                let bound = bounds.get(index).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
                write(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {upto}\n"));
            }
            write(out, format_args!("{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {upto}\n"));
        }
    }
}

/// Labels as text; values are escaped as the format wants it.
fn labels(labels: &Labels) -> String {
    let mut text = String::with_capacity(1024);
    for (name, value) in labels.iter() {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

fn write(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a String takes everything");
}
