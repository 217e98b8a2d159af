//! The parts that a report is written with, each as HTML that needs nothing but a browser.

use crate::files::error::{Error, Result};
use crate::pages::STYLE;
use crate::run::{chart::escape, summary::Table};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt::Write;

/// A document up to its body. Its policy lets nothing be loaded from anywhere.
pub fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         img-src data:; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n",
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
            let cell = escape(cell);
            let _ = match i {
                0 => write!(html, "<th scope=\"row\">{cell}</th>"),
                _ => write!(html, "<td>{cell}</td>"),
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

/// An SVG document as an image: no script that it holds can run.
pub fn figure_html(caption: &str, alt: &str, svg: &[u8]) -> String {
    let (caption, alt) = (escape(caption), escape(alt));
    format!(
        "<figure><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{caption}\">\
         <img class=\"chart\" src=\"data:image/svg+xml;base64,{}\" alt=\"{alt}\"></div>\
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
