//! The parts that pages are written with, each as HTML that needs nothing but a browser.

use crate::files::error::{Error, Result};
use crate::run::chart::palette::{Colours, palette_css};
use crate::run::chart::{Chart, STYLE as CHART_STYLE, Size, escape};
use crate::run::number::{short, with_spread};
use crate::run::summary::Table;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use limbeck_datasets::digest::sha256_of;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The look of all pages.
const STYLE: &str = include_str!("page.css");
/// What charts do under the pointer.
const SCRIPT: &str = include_str!("page.js");

/// The style of a page: colours, charts, everything else.
pub fn style() -> String {
    [&palette_css(), CHART_STYLE, STYLE].join("\n")
}

/// A document of this body. Its policy lets nothing be loaded, and runs no script but the page's own.
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         img-src data:; style-src 'unsafe-inline'; script-src '{}'\">\n\
         <title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         <footer>Made by limbeck {} from the files of the run.</footer>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        digest_of(SCRIPT),
        escape(title),
        style(),
        env!("CARGO_PKG_VERSION")
    )
}

/// The name of a script in the policy of its page: the Base64 of its SHA-256.
pub fn digest_of(script: &str) -> String {
    let hex = sha256_of([script]);
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .filter_map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok())
        .collect();
    format!("sha256-{}", BASE64.encode(bytes))
}

/// A sentence whose figures stay with their units and their spread.
pub fn prose(text: &str) -> String {
    escape(text)
        .replace(" %", "\u{a0}%")
        .replace(" ± ", "\u{a0}±\u{a0}")
        .replace(" = ", "\u{a0}=\u{a0}")
}

/// A section that can be closed; nothing where there is no content. Telephones show the `first` one open.
pub fn section(title: &str, first: bool, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    let first = if first { " first" } else { "" };
    format!(
        "<details class=\"part{first}\" open><summary><h2>{}</h2></summary>\n{content}</details>\n",
        escape(title)
    )
}

/// A table in a box that scrolls by itself.
pub fn table_html(table: &Table) -> String {
    let title = escape(&table.title);
    let mut html = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\">\
         <table><caption>{title}</caption>\n<thead><tr>"
    );
    for column in &table.columns {
        // A header cell without words would name nothing.
        let _ = match column.is_empty() {
            true => write!(html, "<td></td>"),
            false => write!(html, "<th scope=\"col\">{}</th>", escape(column)),
        };
    }
    html += "</tr></thead>\n<tbody>\n";
    for cells in &table.rows {
        html += "<tr>";
        for (i, cell) in cells.iter().enumerate() {
            // Sentences may break, figures may not.
            let kind = if cell.chars().count() > 40 { " class=\"words\"" } else { "" };
            let cell = escape(cell);
            let _ = match i {
                0 => write!(html, "<th scope=\"row\"{kind}>{cell}</th>"),
                _ => write!(html, "<td{kind}>{cell}</td>"),
            };
        }
        html += "</tr>\n";
    }
    html += "</tbody></table></div>\n";
    for note in &table.notes {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html
}

/// A chart across the page, drawn once for wide screens and once for telephones.
pub fn wide_chart(chart: &Chart, colours: &Colours) -> String {
    let names = chart.series.iter().filter(|series| !series.muted).map(|series| &*series.name);
    let colours = colours.or_of(names);
    let pictures =
        wide_and_narrow(chart.picture(Size::WIDE, &colours), chart.picture(Size::NARROW, &colours));
    figure(&chart.title, &chart.caption, &pictures, &numbers(chart))
}

/// Two drawings of the same, of which a screen shows the one that suits it.
pub fn wide_and_narrow(wide: String, narrow: String) -> String {
    format!("<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>")
}

/// A chart of half the page's width.
pub fn half_chart(chart: &Chart, colours: &Colours) -> String {
    figure(&chart.title, &chart.caption, &chart.picture(Size::HALF, colours), &numbers(chart))
}

/// A picture whose marks tell their figures, under its title; below it a sentence and its numbers.
pub fn figure(title: &str, caption: &str, pictures: &str, numbers: &str) -> String {
    let title = escape(title);
    format!(
        "<figure><p class=\"title\">{title}</p><div class=\"plot\" tabindex=\"0\" role=\"group\" \
         aria-label=\"{title}: the arrow keys tell the figures\">{pictures}</div>\
         <figcaption>{}</figcaption>{numbers}</figure>\n",
        escape(caption)
    )
}

/// The numbers of a chart as a table: a row for each x, a column for each line.
fn numbers(chart: &Chart) -> String {
    let mut columns = vec![chart.x_label.as_str()];
    columns.extend(chart.series.iter().map(|series| &*series.name));
    let mut table = Table::new(format!("{}: {}", chart.title, chart.y_label), &columns);
    // Finite numbers of one sign are ordered as their bits are; an offset may be negative.
    let mut rows: BTreeMap<i64, (f64, Vec<String>)> = BTreeMap::new();
    for (i, series) in chart.series.iter().enumerate() {
        for point in &series.points {
            let key = (point.x * 1e6).round() as i64;
            let row = rows.entry(key).or_insert((point.x, vec!["–".into(); chart.series.len()]));
            row.1[i] = with_spread(point.y, point.spread);
        }
    }
    for (x, cells) in rows.into_values() {
        table.push(std::iter::once(short(x)).chain(cells));
    }
    for (name, value) in &chart.references {
        table.note(format!("{name}: {}", short(*value)));
    }
    format!("<details class=\"numbers\"><summary>Numbers</summary>{}</details>", table_html(&table))
}

/// An SVG document as an image: no script that it holds can run.
pub fn image_figure(caption: &str, svg: &[u8]) -> String {
    let caption = escape(caption);
    format!(
        "<figure><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{caption}\">\
         <img class=\"foreign\" src=\"data:image/svg+xml;base64,{}\" alt=\"{caption}\"></div>\
         <figcaption>{caption}</figcaption></figure>\n",
        BASE64.encode(svg)
    )
}

/// The `src` of a greyscale image [height, width]: a PNG in the page itself.
///
/// # Errors
/// [`Error::Internal`] for an image that has no PNG.
pub fn image_source(pixels: &[u8], width: usize, height: usize) -> Result<String> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| {
            writer.write_image_data(pixels)?;
            writer.finish()
        })
        .map_err(|e| Error::Internal(format!("an image to PNG: {e}")))?;
    Ok(format!("data:image/png;base64,{}", BASE64.encode(bytes)))
}
