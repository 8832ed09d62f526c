//! The plot: token requests a minute over the day, as SVG that reads on light and on dark pages.

use std::fmt::Write as _;

use crate::day::{DAY, Day, OUTAGE};

const STYLE: &str = "<style>text{font:13px system-ui,sans-serif;fill:#444}.title{font-weight:600}.line{fill:none;stroke-width:1.2}\
                     .axis{stroke:#9aa4ae;stroke-width:1}.away{fill:#9aa4ae;opacity:.25}.a{stroke:#c2703d}.b{stroke:#2a7ab8}\
                     .c{stroke:#3a8f4d}@media(prefers-color-scheme:dark){text{fill:#ccc}.a{stroke:#e0935c}.b{stroke:#58a6e6}\
                     .c{stroke:#62c17a}}</style>";

const LEFT: f64 = 50.0;
const WIDTH: f64 = 670.0;
const HEIGHT: f64 = 110.0;
const GAP: f64 = 46.0;

/// One panel a day, each on its own scale: what matters is the shape.
pub(crate) fn requests(days: &[Day]) -> String {
    let title = "Token requests a second over 24 hours (the fullest second of each minute)";
    let whole = 40.0 + days.len() as f64 * (HEIGHT + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 740 {whole}\" role=\"img\" aria-label=\"{title}\">{STYLE}\n\
         <text class=\"title\" x=\"20\" y=\"20\">{title}</text>\n"
    );
    for (at, (day, class)) in days.iter().zip(["a", "b", "c"].into_iter().cycle()).enumerate() {
        panel(&mut svg, day, class, 50.0 + at as f64 * (HEIGHT + GAP));
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, day: &Day, class: &str, top: f64) {
    let minutes: Vec<u32> = (0..DAY / 60)
        .map(|minute| {
            let seconds = minute * 60..(minute + 1) * 60;
            let both = day.answered[seconds.clone()].iter().zip(&day.failed[seconds]);
            both.map(|(answered, failed)| answered + failed).max().unwrap_or(0)
        })
        .collect();
    let most = minutes.iter().copied().max().unwrap_or(0).max(1);
    let bottom = top + HEIGHT;
    let x = |second: usize| LEFT + WIDTH * second as f64 / DAY as f64;
    let away = (x(OUTAGE.start), x(OUTAGE.end) - x(OUTAGE.start));
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.0}\">{}: {} in all, at most {most} a second</text>",
        top - 6.0,
        day.scenario,
        day.all
    );
    let _ = writeln!(
        svg,
        "<rect class=\"away\" x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{HEIGHT}\"/>",
        away.0, away.1
    );
    let mut path = String::new();
    for (minute, count) in minutes.iter().enumerate() {
        let y = bottom - HEIGHT * f64::from(*count) / f64::from(most);
        let _ = write!(path, "{}{:.1} {y:.1}", if minute == 0 { "M" } else { "L" }, x(minute * 60));
    }
    let _ = writeln!(svg, "<path class=\"line {class}\" d=\"{path}\"/>");
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{:.0}\" y2=\"{bottom}\"/>",
        LEFT + WIDTH
    );
    for hour in (0..=24).step_by(6) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{hour} h</text>",
            x(hour * 3600),
            bottom + 16.0
        );
    }
    let _ = writeln!(svg, "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{most}</text>", LEFT - 6.0, top + 10.0);
}
