//! Where boxes and arrows go: layers from left to right, pure.
//!
//! A service stands right of all that call it (arrows that would close a circle are turned round first); within a layer
//! services stand near their callers. Each arrow has a place of its own at the box where it ends, so that its label
//! needs no search for free room.

use std::collections::BTreeSet;

/// Width of a box.
pub const BOX_WIDTH: f64 = 184.;
/// Height of a row of a box into which no arrow leads.
pub const ROW_HEIGHT: f64 = 30.;
/// Height that an arrow with its label of two lines needs.
const PORT_HEIGHT: f64 = 34.;
/// Room between layers, for labels.
const LAYER_GAP: f64 = 276.;
/// Room between boxes.
const BOX_GAP: f64 = 26.;
const MARGIN: f64 = 14.;
/// How often the order within layers is improved.
const SWEEPS: usize = 6;

/// An arrow: from a row of a box to a row of a box.
pub type Arrow = ((usize, usize), (usize, usize));

/// A placed box.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Height.
    pub height: f64,
    /// Upper edge and height of each row.
    pub rows: Vec<(f64, f64)>,
}

/// A drawn arrow.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// The path, in SVG's words.
    pub path: String,
    /// Right end of the label's base line.
    pub label: (f64, f64),
}

/// The picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    /// Width of all.
    pub width: f64,
    /// Height of all.
    pub height: f64,
    /// In the order of the input.
    pub boxes: Vec<Placed>,
    /// In the order of the input.
    pub arrows: Vec<Drawn>,
}

/// Places boxes that have so many rows, and draws arrows between them.
pub fn place(rows: &[usize], arrows: &[Arrow]) -> Layout {
    let layers = layers(rows.len(), arrows);
    let order = order(&layers, rows.len(), arrows);
    let ports: Vec<Vec<usize>> = rows
        .iter()
        .enumerate()
        .map(|(b, count)| (0..*count).map(|row| arrows.iter().filter(|a| a.1 == (b, row)).count()).collect())
        .collect();
    let height =
        |b: usize| ports.get(b).map_or(0., |rows: &Vec<usize>| rows.iter().map(|n| row_height(*n)).sum::<f64>());
    let column = |boxes: &[usize]| boxes.iter().map(|b| height(*b) + BOX_GAP).sum::<f64>() - BOX_GAP;
    let tallest = order.iter().map(|boxes| column(boxes)).fold(0., f64::max);
    let mut placed = vec![Placed { x: 0., y: 0., height: 0., rows: Vec::new() }; rows.len()];
    for (layer, boxes) in order.iter().enumerate() {
        let mut y = MARGIN + (tallest - column(boxes)) / 2.;
        for b in boxes {
            let mut top = y;
            let tops = ports[*b].iter().map(|n| {
                let row = (top, row_height(*n));
                top += row.1;
                row
            });
            let x = MARGIN + layer as f64 * (BOX_WIDTH + LAYER_GAP);
            placed[*b] = Placed { x, y, height: height(*b), rows: tops.collect() };
            y += height(*b) + BOX_GAP;
        }
    }
    let bottom = MARGIN + tallest;
    let drawn = draw(&placed, arrows, bottom);
    let width = 2. * MARGIN + order.len().max(1) as f64 * (BOX_WIDTH + LAYER_GAP) - LAYER_GAP;
    let backwards = arrows.iter().any(|a| placed[a.0.0].x >= placed[a.1.0].x);
    Layout { width, height: bottom + MARGIN + if backwards { 60. } else { 0. }, boxes: placed, arrows: drawn }
}

fn row_height(ports: usize) -> f64 {
    ROW_HEIGHT.max(ports as f64 * PORT_HEIGHT)
}

/// The layer of each box: the longest way to it. What closes a circle does not count.
fn layers(boxes: usize, arrows: &[Arrow]) -> Vec<usize> {
    let between: BTreeSet<(usize, usize)> = arrows.iter().map(|a| (a.0.0, a.1.0)).filter(|(a, b)| a != b).collect();
    let mut state = vec![Visit::Not; boxes];
    let mut forward: Vec<Vec<usize>> = vec![Vec::new(); boxes];
    let called: BTreeSet<usize> = between.iter().map(|(_, to)| *to).collect();
    let roots = (0..boxes).filter(|b| !called.contains(b));
    let mut finished = Vec::new();
    for root in roots.chain(0..boxes) {
        visit(root, &between, &mut state, &mut forward, &mut finished);
    }
    let mut layer = vec![0; boxes];
    for from in finished.into_iter().rev() {
        for to in &forward[from] {
            layer[*to] = layer[*to].max(layer[from] + 1);
        }
    }
    layer
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    Not,
    Open,
    Done,
}

/// Depth first, without recursion: the mesh may be a long chain.
fn visit(
    root: usize,
    between: &BTreeSet<(usize, usize)>,
    state: &mut [Visit],
    forward: &mut [Vec<usize>],
    finished: &mut Vec<usize>,
) {
    let targets = |from: usize| between.range((from, 0)..=(from, usize::MAX)).map(|(_, to)| *to).collect::<Vec<_>>();
    if state[root] != Visit::Not {
        return;
    }
    state[root] = Visit::Open;
    let mut stack = vec![(root, targets(root).into_iter())];
    while let Some((from, rest)) = stack.last_mut() {
        let from = *from;
        let Some(to) = rest.next() else {
            state[from] = Visit::Done;
            finished.push(from);
            stack.pop();
            continue;
        };
        if state[to] == Visit::Open {
            continue;
        }
        forward[from].push(to);
        if state[to] == Visit::Not {
            state[to] = Visit::Open;
            stack.push((to, targets(to).into_iter()));
        }
    }
}

/// The boxes of each layer, from top to bottom.
fn order(layers: &[usize], boxes: usize, arrows: &[Arrow]) -> Vec<Vec<usize>> {
    let count = layers.iter().max().map_or(0, |last| last + 1);
    let mut order: Vec<Vec<usize>> = vec![Vec::new(); count];
    (0..boxes).for_each(|b| order[layers[b]].push(b));
    let mut position = vec![0.; boxes];
    let number = |order: &[Vec<usize>], position: &mut [f64]| {
        for boxes in order {
            // In the middle of the layer, whatever its length.
            let middle = boxes.len() as f64 / 2.;
            boxes.iter().enumerate().for_each(|(at, b)| position[*b] = at as f64 - middle);
        }
    };
    number(&order, &mut position);
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        for step in 0..count {
            let layer = if down { step } else { count - 1 - step };
            let wish = |b: usize| {
                let near: Vec<f64> = arrows
                    .iter()
                    .filter_map(|((from, row), (to, port))| match (down, *from == b, *to == b) {
                        (true, false, true) => Some(position[*from] + *row as f64 * 0.01),
                        (false, true, false) => Some(position[*to] + *port as f64 * 0.01),
                        _ => None,
                    })
                    .collect();
                if near.is_empty() { position[b] } else { near.iter().sum::<f64>() / near.len() as f64 }
            };
            let mut wished: Vec<(f64, usize)> = order[layer].iter().map(|b| (wish(*b), *b)).collect();
            wished.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            order[layer] = wished.into_iter().map(|(_, b)| b).collect();
            number(&order, &mut position);
        }
    }
    order
}

fn draw(placed: &[Placed], arrows: &[Arrow], bottom: f64) -> Vec<Drawn> {
    let middle = |(b, row): (usize, usize)| placed[b].rows.get(row).map_or(placed[b].y, |(y, h)| y + h / 2.);
    // At the box where they end arrows stand in the order of the boxes that they come from.
    let mut ports: Vec<usize> = (0..arrows.len()).collect();
    ports.sort_by(|a, b| middle(arrows[*a].0).total_cmp(&middle(arrows[*b].0)));
    (0..arrows.len())
        .map(|index| {
            let (from, to) = arrows[index];
            let at =
                ports.iter().filter(|other| arrows[**other].1 == to).position(|other| *other == index).unwrap_or(0);
            let all = arrows.iter().filter(|other| other.1 == to).count();
            let (x1, y1) = (placed[from.0].x + BOX_WIDTH, middle(from));
            let (x2, y2) = (placed[to.0].x - 6., middle(to) + (at as f64 - (all as f64 - 1.) / 2.) * PORT_HEIGHT);
            let path = if x1 < x2 {
                let bend = 70.;
                format!(
                    "M{x1:.0} {y1:.0}C{:.0} {y1:.0} {:.0} {y2:.0} {:.0} {y2:.0}H{x2:.0}",
                    x1 + bend,
                    x1 + bend - 30.,
                    x1 + bend
                )
            } else {
                let low = bottom + 34.;
                let between = (x1 + x2) / 2.;
                format!(
                    "M{x1:.0} {y1:.0}C{:.0} {y1:.0} {:.0} {low:.0} {between:.0} {low:.0}S{:.0} {y2:.0} {x2:.0} {y2:.0}",
                    x1 + 60.,
                    x1 + 60.,
                    x2 - 60.
                )
            };
            Drawn { path, label: (x2 - 12., y2 - 4.) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x(layout: &Layout) -> Vec<f64> {
        layout.boxes.iter().map(|b| b.x).collect()
    }

    #[test]
    fn callers_stand_left_of_what_they_call() {
        // 0 calls 1 and 2, 1 calls 2 and 3.
        let layout = place(&[2, 4, 2, 2], &[((0, 1), (1, 1)), ((0, 1), (2, 1)), ((1, 2), (2, 1)), ((1, 3), (3, 1))]);
        let x = x(&layout);
        assert!(x[0] < x[1] && x[1] < x[2] && x[2] == x[3], "{x:?}");
    }

    #[test]
    fn circles_and_calls_of_oneself_are_drawn() {
        let layout = place(&[1, 1, 1], &[((0, 0), (1, 0)), ((1, 0), (2, 0)), ((2, 0), (0, 0)), ((1, 0), (1, 0))]);
        assert_eq!(layout.arrows.len(), 4);
        assert!(x(&layout)[1] < x(&layout)[2]);
    }

    #[test]
    fn boxes_and_labels_never_overlap() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..200 {
            let boxes = random.usize(1..30);
            let rows: Vec<usize> = (0..boxes).map(|_| random.usize(1..4)).collect();
            let mut arrows: Vec<Arrow> = (0..random.usize(0..60))
                .map(|_| {
                    let (a, b) = (random.usize(0..boxes), random.usize(0..boxes));
                    ((a, random.usize(0..rows[a])), (b, random.usize(0..rows[b])))
                })
                .collect();
            arrows.sort_unstable();
            arrows.dedup();
            let layout = place(&rows, &arrows);
            for (i, a) in layout.boxes.iter().enumerate() {
                assert!(a.x >= 0. && a.y >= 0. && a.y + a.height <= layout.height, "round {round}");
                for b in &layout.boxes[i + 1..] {
                    assert!(a.x != b.x || a.y + a.height <= b.y || b.y + b.height <= a.y, "round {round}: {a:?} {b:?}");
                }
            }
            for (i, a) in layout.arrows.iter().enumerate() {
                for b in &layout.arrows[i + 1..] {
                    let apart = (a.label.1 - b.label.1).abs() > 25. || (a.label.0 - b.label.0).abs() > 200.;
                    assert!(apart, "round {round}: {a:?} {b:?}");
                }
            }
        }
    }
}
