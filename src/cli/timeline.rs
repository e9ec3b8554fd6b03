//! Coverage as lines of characters: one line a source, a cell an interval.
//!
//! A cell shows the worst of what lies in it, so that no hole is too short to be seen.

use std::fmt::Write as _;

use super::log::visible;
use super::out::length;
use crate::archive::{Classes, ScopeCoverage};
use crate::model::UnixMicros;

/// Cells of a line at most.
const CELLS_MAX: usize = 120;

/// Worst first: name, character, and its colour (SGR).
const CELLS: [(&str, char, &str); 6] = [
    ("missing", '!', "31"),
    ("unverifiable", '?', "33"),
    ("pruned", '·', "90"),
    ("backfilled", '▒', "34"),
    ("live", '█', "32"),
    ("audited", '▓', "36"),
];

/// Draws each source's coverage from `from` to `to` into lines of `columns` characters.
pub(super) fn draw(
    sources: &[(String, Vec<ScopeCoverage>)],
    (from, to): (UnixMicros, UnixMicros),
    columns: usize,
    colours: bool,
) -> String {
    let name_width = sources.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(4);
    let cells = columns.saturating_sub(name_width + 3).clamp(8, CELLS_MAX);
    let edge = |cell: usize| UnixMicros(from.0 + ((to.0 - from.0) as i128 * cell as i128 / cells as i128) as i64);
    let mut used = [false; CELLS.len()];
    let mut text = String::new();
    let ends = [from, to].map(|at| at.to_string()[..19].replace('T', " ") + "Z");
    let room = cells.saturating_sub(ends[0].len() + ends[1].len());
    let _ = writeln!(text, "{:name_width$}  {}{}{}", "", ends[0], " ".repeat(room.max(1)), ends[1]);
    for (name, scopes) in sources {
        let _ = write!(text, "{:name_width$}  ", visible(name));
        for cell in 0..cells {
            match worst(scopes, edge(cell), edge(cell + 1)) {
                None => text.push(' '),
                Some(class) => {
                    used[class] = true;
                    let (_, character, colour) = CELLS[class];
                    let _ = if colours { write!(text, "\x1b[{colour}m{character}\x1b[0m") } else { write!(text, "{character}") };
                }
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    let legend: Vec<_> =
        CELLS.iter().zip(used).filter(|(_, used)| *used).map(|((name, c, _), _)| format!("{c} {name}")).collect();
    let cell = length((to.0 - from.0) / cells as i64);
    let _ = writeln!(text, "{:name_width$}  a cell is {cell}: {}", "", legend.join(", "));
    text
}

/// The worst class that a stretch has anything of.
fn worst(scopes: &[ScopeCoverage], from: UnixMicros, to: UnixMicros) -> Option<usize> {
    let there: Vec<Classes> = scopes.iter().map(|scope| scope.classes.within(from, to)).collect();
    CELLS.iter().position(|(class, ..)| {
        there.iter().any(|classes| classes.named().iter().any(|(name, set)| name == class && !set.is_empty()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn scope(fill: impl FnOnce(&mut Classes)) -> ScopeCoverage {
        let mut classes = Classes::default();
        fill(&mut classes);
        ScopeCoverage {
            scope: "*".to_owned(),
            version: 1,
            since: UnixMicros(0),
            until: None,
            horizon_us: 0,
            text: None,
            every_kind: classes.clone(),
            classes,
            kinds: Vec::new(),
            frontier: None,
        }
    }

    #[test]
    fn a_cell_shows_the_worst_in_it() {
        let (start, minute) = (1_767_614_400_000_000, 60_000_000);
        let at = |minutes: i64| UnixMicros(start + minutes * minute);
        let alpha = scope(|classes| {
            classes.live.insert(at(0), at(20));
            classes.missing.insert(at(20), UnixMicros(at(20).0 + 1));
            classes.live.insert(UnixMicros(at(20).0 + 1), at(30));
            classes.backfilled.insert(at(30), at(40));
            classes.audited.insert(at(40), at(50));
        });
        let topic = scope(|classes| classes.unverifiable.insert(at(55), at(60)));
        let x = scope(|classes| classes.live.insert(at(10), at(50)));
        let sources = [("alpha".to_owned(), vec![alpha, topic]), ("x".to_owned(), vec![x])];
        let text = draw(&sources, (at(0), at(60)), 68, false);
        expect![[r"
                   2026-01-05 12:00:00Z                    2026-01-05 13:00:00Z
            alpha  ████████████████████!█████████▒▒▒▒▒▒▒▒▒▒▓▓▓▓▓▓▓▓▓▓     ?????
            x                ████████████████████████████████████████
                   a cell is 1m: ! missing, ? unverifiable, ▒ backfilled, █ live, ▓ audited
        "]]
        .assert_eq(&text);
        assert!(draw(&sources, (at(0), at(60)), 68, true).contains("\x1b[31m!\x1b[0m"));
    }
}
