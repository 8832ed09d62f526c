//! Two kinds of charts as SVG, for light and for dark pages.

use std::fmt::Write as _;

const STYLE: &str = "<style>text{font:13px system-ui,sans-serif;fill:#444}.title{font-weight:600}.a{fill:#2a7ab8}\
                     .b{fill:#9aa4ae}.c{fill:#c2703d}@media(prefers-color-scheme:dark){text{fill:#ccc}.a{fill:#58a6e6}\
                     .b{fill:#6e7781}.c{fill:#e0935c}}</style>";
/// Of a character of 13 pixels, rather too wide.
const CHARACTER: usize = 7;

pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Of this crate.
    pub(crate) is_ours: bool,
}

/// One bar below the other, with names as wide as the longest needs.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let mut svg = begin(title, 40 + 26 * bars.len());
    let names = 20 + CHARACTER * bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let space = (740 - names - 70) as f64;
    let most = bars.iter().map(|bar| bar.value).fold(1.0, f64::max);
    for (at, Bar { name, value, is_ours }) in bars.iter().enumerate() {
        let (y, width) = (34 + 26 * at, (value / most * space).max(1.0));
        let class = if *is_ours { "a" } else { "b" };
        let _ = writeln!(svg, "<text x=\"{names}\" y=\"{}\" text-anchor=\"end\">{name}</text>", y + 14);
        let x = names + 10;
        let _ =
            writeln!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" rx=\"2\"/>");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{}\">{value:.0}</text>", x as f64 + width + 6.0, y + 14);
    }
    svg + "</svg>\n"
}

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(String, f64)>,
}

/// Three series, side by side at each of their points.
pub(crate) fn groups(title: &str, series: &[Series; 3]) -> String {
    let mut svg = begin(title, 300);
    let all = series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
    let most = all.filter(|value| value.is_finite()).fold(0.1, f64::max);
    for (which, (Series { name, points }, class)) in series.iter().zip(["b", "a", "c"]).enumerate() {
        let x = 20 + 230 * which;
        let _ = writeln!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" rx=\"2\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"45\">{name}</text>", x + 18);
        for (at, (label, value)) in points.iter().enumerate() {
            let (x, height) = (20 + 78 * at + 20 * which, if value.is_finite() { value / most * 180.0 } else { 0.0 });
            let y = 255.0 - height;
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y:.1}\" width=\"18\" height=\"{height:.1}\" rx=\"2\"/>"
            );
            if which == 1 {
                let _ = writeln!(svg, "<text x=\"{}\" y=\"274\" text-anchor=\"middle\">{label}</text>", x + 9);
                let y = y - 4.0;
                let _ = writeln!(svg, "<text x=\"{}\" y=\"{y:.1}\" text-anchor=\"middle\">{value:.1}</text>", x + 9);
            }
        }
    }
    svg + "</svg>\n"
}

fn begin(title: &str, height: usize) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 740 {height}\" role=\"img\" aria-label=\"{title}\">{STYLE}\n\
         <text class=\"title\" x=\"20\" y=\"20\">{title}</text>\n"
    )
}
