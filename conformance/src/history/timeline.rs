//! A violation as a picture: who waited and who held, around the moment.

use std::fmt::Write as _;

use lockcore::Mode;

use super::explain::{moment, named};
use super::{Act, Event, Violation};

const WIDTH: u64 = 900;
const LEFT: u64 = 200;
const ROW: u64 = 28;
const TOP: u64 = 56;

/// So many others of the key are shown as well.
const OTHERS: usize = 6;

const STYLE: &str = "text{font:13px sans-serif;fill:#222}.quiet{fill:#777}.waits{fill:#c8ccd0}.alone{fill:#3b6fb6}\
.shares{fill:#4d9a5b}.wrote{stroke:#222;stroke-width:2}.refused{stroke:#b3261e;stroke-width:2}\
.wrong{stroke:#b3261e;stroke-width:1.5;stroke-dasharray:4 3}.guilty{fill:#b3261e;font-weight:bold}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.quiet{fill:#999}.waits{fill:#55595e}.wrote{stroke:#eee}}";

/// One attempt, as it is drawn.
struct Row {
    attempt: u64,
    mode: Mode,
    asked: u64,
    granted: Option<u64>,
    token: u64,
    /// When it stopped to wait, or to believe that it holds.
    ended: Option<u64>,
    writes: Vec<(u64, bool)>,
}

/// The attempts of a violation, and some others on the key at that time, as an SVG image.
#[must_use]
pub fn timeline(events: &[Event], violation: &Violation) -> String {
    let guilty = violation.attempts();
    let key = events.iter().find(|event| guilty.contains(&event.attempt)).map_or("", |event| &event.key);
    let rows = rows(events.iter().filter(|event| event.key == key));
    let last = events.iter().map(|event| event.at).max().unwrap_or(0);
    let (from, to) = window(rows.iter().filter(|row| guilty.contains(&row.attempt)), last);
    let is_guilty = |row: &&Row| guilty.contains(&row.attempt);
    let is_near = |row: &&Row| row.asked <= to && row.ended.unwrap_or(last) >= from && row.granted.is_some();
    let mut shown: Vec<&Row> =
        rows.iter().filter(|row| !is_guilty(row) && is_near(row)).take(OTHERS).collect();
    shown.extend(rows.iter().filter(is_guilty));
    shown.sort_by_key(|row| (row.granted.unwrap_or(row.asked), row.asked));
    let height = TOP + ROW * u64::try_from(shown.len()).unwrap_or(0) + 34;
    let scale = Scale { from, to };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n\
         <text x=\"10\" y=\"22\">{}</text>\n<text x=\"10\" y=\"42\" class=\"quiet\">{}</text>\n",
        escaped(&violation.to_string()),
        escaped(&format!("key {key:?}")),
    );
    for (at, row) in (0..).zip(&shown) {
        row.draw(&mut svg, &scale, TOP + ROW * at, guilty.contains(&row.attempt), last);
    }
    if let Violation::Overlap { at, .. } = violation {
        let x = scale.x(*at);
        let _ = writeln!(
            svg,
            "<line class=\"wrong\" x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{}\"/>",
            height - 28
        );
    }
    let end = WIDTH - 10;
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{y}\" class=\"quiet\">{}</text><text x=\"{end}\" y=\"{y}\" class=\"quiet\" text-anchor=\"end\">{}</text>\n</svg>",
        moment(from),
        moment(to),
        y = height - 10,
    );
    svg
}

fn rows<'e>(events: impl Iterator<Item = &'e Event>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for event in events {
        let at = event.at;
        if let Act::Asked { mode } = event.act {
            index.insert(event.attempt, rows.len());
            let (granted, ended, writes) = (None, None, Vec::new());
            rows.push(Row { attempt: event.attempt, mode, asked: at, granted, token: 0, ended, writes });
            continue;
        }
        let Some(row) = index.get(&event.attempt).map(|&position: &usize| &mut rows[position]) else {
            continue;
        };
        match event.act {
            Act::Granted { token, until, .. } => {
                (row.granted, row.token, row.ended) = (Some(at), token, until);
            }
            Act::Renewed { until } => row.ended = Some(until),
            Act::Wrote { accepted } => row.writes.push((at, accepted)),
            Act::Lost | Act::Releasing | Act::Released { .. } | Act::GaveUp => {
                row.ended = Some(row.ended.map_or(at, |ended| ended.min(at)));
            }
            Act::Asked { .. } | Act::Queued | Act::ForeignRelease { .. } => {}
        }
    }
    rows
}

/// From when to when is shown: while these held, and a quarter of that before and after.
fn window<'r>(rows: impl Iterator<Item = &'r Row>, last: u64) -> (u64, u64) {
    let (mut from, mut to) = (u64::MAX, 0);
    for row in rows {
        from = from.min(row.granted.unwrap_or(row.asked));
        to = to.max(row.ended.unwrap_or(last).max(row.granted.unwrap_or(row.asked)));
        to = to.max(row.writes.last().map_or(0, |&(at, _)| at));
    }
    let (from, to) = (from.min(to), to.min(last.max(1)));
    let margin = to.saturating_sub(from) / 4 + 1;
    (from.saturating_sub(margin), to.saturating_add(margin))
}

struct Scale {
    from: u64,
    to: u64,
}

impl Scale {
    /// Where a moment is drawn; one that is not shown, at the edge.
    fn x(&self, at: u64) -> u64 {
        let at = at.clamp(self.from, self.to);
        let (along, length) = (u128::from(at - self.from), u128::from((self.to - self.from).max(1)));
        LEFT + u64::try_from(along * u128::from(WIDTH - LEFT - 10) / length).unwrap_or(0)
    }
}

impl Row {
    fn draw(&self, svg: &mut String, scale: &Scale, y: u64, is_guilty: bool, last: u64) {
        let class = if is_guilty { "guilty" } else { "quiet" };
        let name = escaped(&format!("{} {}", self.attempt, named(self.mode)));
        let _ = writeln!(svg, "<text x=\"10\" y=\"{}\" class=\"{class}\">{name}</text>", y + 16);
        let ended = self.ended.unwrap_or(last);
        bar(svg, "waits", scale.x(self.asked), scale.x(self.granted.unwrap_or(ended)), y);
        if let Some(granted) = self.granted {
            let (from, to) = (scale.x(granted), scale.x(ended.max(granted)));
            bar(svg, if self.mode.is_exclusive() { "alone" } else { "shares" }, from, to, y);
            let (x, text) = (to.min(WIDTH - 110) + 4, y + 16);
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{text}\" class=\"quiet\">token {}</text>", self.token);
        }
        for &(at, accepted) in self.writes.iter().filter(|&&(at, _)| at <= scale.to) {
            let (x, class) = (scale.x(at), if accepted { "wrote" } else { "refused" });
            let _ = writeln!(
                svg,
                "<line class=\"{class}\" x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{}\"/>",
                y + 2,
                y + 22
            );
        }
    }
}

fn bar(svg: &mut String, class: &str, from: u64, to: u64, y: u64) {
    // So that a moment is seen as well.
    let width = to.saturating_sub(from).max(2);
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{from}\" y=\"{}\" width=\"{width}\" height=\"16\" rx=\"2\"/>",
        y + 4
    );
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            // What XML does not allow at all.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Options, check};

    fn event(at: u64, attempt: u64, act: Act) -> Event {
        Event { at, attempt, key: "<k> & \0".into(), act }
    }

    fn holds(from: u64, to: u64, attempt: u64, mode: Mode) -> Vec<Event> {
        let granted = Act::Granted { token: from, floor: from, until: None };
        vec![
            event(from - 5, attempt, Act::Asked { mode }),
            event(from, attempt, granted),
            event(from + 1, attempt, Act::Wrote { accepted: true }),
            event(to, attempt, Act::Releasing),
        ]
    }

    /// The rectangles of a class: where they begin and end.
    fn bars(image: &roxmltree::Document, class: &str) -> Vec<(u64, u64)> {
        let number = |node: &roxmltree::Node, name| node.attribute(name).unwrap().parse::<u64>().unwrap();
        let bars =
            image.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "rect")));
        let of_class = bars.filter(|node| node.attribute("class") == Some(class));
        of_class.map(|node| (number(&node, "x"), number(&node, "x") + number(&node, "width"))).collect()
    }

    #[test]
    fn two_who_overlap_are_drawn_so_and_others_with_them() {
        let mut events = holds(100, 200, 1, Mode::Exclusive);
        events.extend(holds(150, 300, 2, Mode::Shared));
        events.extend(holds(160, 310, 3, Mode::Shared));
        events.extend(holds(90_000, 90_010, 4, Mode::Exclusive));
        events.sort_by_key(|event| event.at);
        let violation = check(&events, Options::default()).unwrap_err();
        let image = timeline(&events, &violation);
        let image = roxmltree::Document::parse(&image).unwrap();
        let (alone, shares) = (bars(&image, "alone"), bars(&image, "shares"));
        assert_eq!((alone.len(), shares.len()), (1, 2), "the fourth came much later");
        assert!(shares[0].0 < alone[0].1 && alone[0].1 < shares[0].1, "{alone:?} {shares:?}");
        let text: String = image.descendants().filter_map(|node| node.text()).collect();
        assert!(text.contains("attempts 1 and 2 exclude each other") && text.contains("<k> &"), "{text}");
    }

    #[test]
    fn whatever_is_wrong_is_drawn() {
        let alone = [event(7, 1, Act::Queued)];
        for events in [&alone[..], &holds(u64::MAX - 10, u64::MAX, 1, Mode::Exclusive)[..2]] {
            let violation = check(events, Options { complete: true, ..Options::default() }).unwrap_err();
            roxmltree::Document::parse(&timeline(events, &violation)).unwrap();
        }
    }
}
