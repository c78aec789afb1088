//! How things are shown: tables for people, JSON and YAML for programs.
//!
//! Much of what is shown was written by strangers, in headers of SIP messages. On a terminal none of it may be more than
//! text.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use clap::ValueEnum;
use serde::Serialize;

use crate::outcome::Failure;

/// The form of what is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// Where the result goes.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    has_colours: bool,
}

/// How a text is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Not as it should be.
    Bad,
    /// Less important.
    Dim,
}

/// A text with its tone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Without control characters.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
}

/// Rows below a header, each column as wide as its widest cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl<'a> Screen<'a> {
    /// Colours are for terminals, and not for who does not want them (<https://no-color.org>).
    pub fn stdout(out: &'a mut dyn Write) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let able = std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        Self { out, has_colours: wanted && able && io::stdout().is_terminal() }
    }

    /// Without colours.
    pub fn plain(out: &'a mut dyn Write) -> Self {
        Self { out, has_colours: false }
    }

    /// A line of text, whoever wrote it.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.toned(text, Tone::Plain)
    }

    /// A line in a tone.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn toned(&mut self, text: &str, tone: Tone) -> Result<(), Failure> {
        let text = clean(text);
        let painted = self.paint(&text, tone);
        Ok(writeln!(self.out, "{painted}")?)
    }

    /// Shows it at once, for what goes on.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// A table.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn table(&mut self, table: &Table) -> Result<(), Failure> {
        let widths = table.widths();
        let header = table.header.iter().map(|name| Cell::from(*name)).collect::<Vec<_>>();
        for row in [&header].into_iter().chain(&table.rows) {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line.push_str(&self.paint(&cell.text, cell.tone));
                if index + 1 < row.len() {
                    line.push_str(&" ".repeat(width - width_of(&cell.text) + 3));
                }
            }
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// A value, in the form of programs.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn value(&mut self, value: &impl Serialize, format: Format) -> Result<(), Failure> {
        match format {
            Format::Text | Format::Json => {
                serde_json::to_writer_pretty(&mut *self.out, value).map_err(io::Error::from)?;
                writeln!(self.out)?;
            }
            Format::Yaml => {
                let text = serde_saphyr::to_string(value).map_err(|error| Failure::Form(error.to_string()))?;
                writeln!(self.out, "{}", text.trim_end())?;
            }
        }
        Ok(())
    }

    /// Several texts that are no text of strangers: what a shell is to read.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn raw(&mut self, text: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(text)?)
    }

    fn paint<'t>(&self, text: &'t str, tone: Tone) -> Cow<'t, str> {
        let code = match tone {
            Tone::Plain => return Cow::Borrowed(text),
            Tone::Good => 32,
            Tone::Warn => 33,
            Tone::Bad => 31,
            Tone::Dim => 2,
        };
        if self.has_colours { Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m")) } else { Cow::Borrowed(text) }
    }
}

impl Cell {
    /// A text in a tone.
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: clean(text.as_ref()).into_owned(), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl Table {
    /// Without rows.
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// The names of the columns.
    pub fn header(&self) -> &[&'static str] {
        &self.header
    }

    /// Below the header.
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// Of each column, the header included.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|name| width_of(name)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(width_of(&cell.text));
            }
        }
        widths
    }
}

fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// A terminal obeys control characters: in their place stands the sign for what cannot be shown.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| c.is_control()) {
        Cow::Owned(text.replace(|c: char| c.is_control(), "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Seconds as people say them: `45s`, `12m30s`, `3h5m`, `2d4h`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.abs().round().min(1e15) as u64;
    let (units, unit, rest, rest_unit) = match whole {
        0..120 => return format!("{}{whole}s", if seconds.round() < 0.0 { "-" } else { "" }),
        120..7200 => (whole / 60, "m", whole % 60, "s"),
        7200..172_800 => (whole / 3600, "h", whole % 3600 / 60, "m"),
        _ => (whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    };
    let sign = if seconds < 0.0 { "-" } else { "" };
    if rest == 0 { format!("{sign}{units}{unit}") } else { format!("{sign}{units}{unit}{rest}{rest_unit}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(has_colours: bool, show: impl FnOnce(&mut Screen<'_>) -> Result<(), Failure>) -> String {
        let mut out = Vec::new();
        show(&mut Screen { out: &mut out, has_colours }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["A", "LONG", "B"]);
        table.row(vec!["é".into(), "x".into(), "1".into()]);
        table.row(vec!["long".into(), "".into(), "".into()]);
        assert_eq!(shown(false, |screen| screen.table(&table)), "A      LONG   B\né      x      1\nlong\n");
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec![Cell::toned("ok", Tone::Good), "1".into()]);
        assert_eq!(shown(true, |screen| screen.table(&table)), "A    B\n\x1b[32mok\x1b[0m   1\n");
    }

    #[test]
    fn what_strangers_wrote_moves_no_terminal() {
        let nasty = "a\x1b[2J\u{9b}31m\r\nb\u{7}";
        assert_eq!(clean(nasty), "a\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}b\u{fffd}");
        assert!(!shown(false, |screen| screen.line(nasty)).contains('\x1b'));
        assert!(!Cell::from(nasty).text.contains('\x1b'));
        for format in [Format::Json, Format::Yaml] {
            let text = shown(false, |screen| screen.value(&json!({ "call_id": nasty }), format));
            assert!(!text.contains(['\x1b', '\u{7}']), "{text:?}");
        }
    }

    #[test]
    fn yaml_is_read_again_as_what_it_was() {
        let value = json!({ "a": [1, null, "x: y", "- no", "true", ""], "b": { "c": 1.5 }, "d": "0-7", "e": "1:30" });
        let text = shown(false, |screen| screen.value(&value, Format::Yaml));
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&text).unwrap(), value, "{text}");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in [
            (0.4, "0s"),
            (-0.4, "0s"),
            (119.4, "119s"),
            (120.0, "2m"),
            (754.0, "12m34s"),
            (7200.0, "2h"),
            (11_100.0, "3h5m"),
            (187_200.0, "2d4h"),
            (-90.0, "-90s"),
            (-150.0, "-2m30s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
