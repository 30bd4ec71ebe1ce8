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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::point::attribute;
    use crate::report::series::SeriesTable;

    // spec: MX-102
    #[test]
    fn values_of_labels_cannot_leave_their_quotes() {
        let mut table = SeriesTable::new(10);
        let series = table.find(Family::Requests, &[attribute("a b", "x\"} 1\ny\\"), attribute("0", "")]);
        table.add(series, &Value::Number(3.));
        let text: String = pieces(table.all().to_vec()).collect();
        assert_eq!(text.lines().last(), Some(r#"istio_requests_total{_0="",a_b="x\"} 1\ny\\"} 3"#));
    }

    #[test]
    fn buckets_add_up_and_each_family_has_one_head() {
        let mut table = SeriesTable::new(1000);
        for n in 0..600 {
            let labels = [attribute("n", &n.to_string())];
            for family in [Family::Duration, Family::Requests] {
                let series = table.find(family, &labels);
                let value = match family {
                    Family::Requests => Value::Number(1.),
                    _ => Value::Histogram(vec![1, 2, 3], 9.5, vec![0.5, 5.]),
                };
                table.add(series, &value);
            }
        }
        let text: String = pieces(table.all().to_vec()).collect();
        assert_eq!(text.matches("# TYPE").count(), 2);
        let of_first: Vec<&str> = text.lines().filter(|line| line.contains("n=\"0\"")).collect();
        let wanted = [
            r#"istio_requests_total{n="0"} 1"#,
            r#"istio_request_duration_milliseconds_bucket{n="0",le="0.5"} 1"#,
            r#"istio_request_duration_milliseconds_bucket{n="0",le="5"} 3"#,
            r#"istio_request_duration_milliseconds_bucket{n="0",le="+Inf"} 6"#,
            r#"istio_request_duration_milliseconds_sum{n="0"} 9.5"#,
            r#"istio_request_duration_milliseconds_count{n="0"} 6"#,
        ];
        assert_eq!(of_first, wanted);
    }
}
