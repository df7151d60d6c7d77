//! Standard output: lines, tables, JSON and times. A reader that goes away (`assertctl keys |
//! head -1`) is no error; a disk that is full is one. Text that others chose cannot move the
//! cursor: control characters are shown, not sent.

use super::failure::{Exit, Failure};
use serde::Serialize;
use std::io::{self, Write};

/// Where answers go. Keeps the first error, so that work under way is never stopped by a pipe.
pub struct Out<'a> {
    writer: Box<dyn Write + 'a>,
    error: Option<io::Error>,
}

impl<'a> Out<'a> {
    /// Writes to `writer`.
    pub fn new(writer: impl Write + 'a) -> Out<'a> {
        Out {
            writer: Box::new(writer),
            error: None,
        }
    }

    /// One line or several, without the last newline.
    pub fn line(&mut self, text: &str) {
        self.write(clean(text).as_bytes());
        self.write(b"\n");
    }

    /// Columns, two spaces apart.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        for row in align(rows) {
            self.line(&row);
        }
    }

    /// A value as JSON, for programs.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(Exit::Internal, format!("JSON: {error}")))?;
        self.write(text.as_bytes());
        self.write(b"\n");
        Ok(())
    }

    /// Sends what is written so far.
    pub fn flush(&mut self) {
        if let Err(error) = self.writer.flush() {
            self.error.get_or_insert(error);
        }
    }

    /// Whether everything arrived.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.flush();
        match self.error.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
                Exit::Internal,
                format!("standard output: {error}"),
            )),
            _ => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.error.is_none()
            && let Err(error) = self.writer.write_all(bytes)
        {
            self.error = Some(error);
        }
    }
}

/// Text with its control characters, but newlines, made visible.
pub fn clean(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => "\n".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Rows as lines; each column as wide as its longest cell, the last one as it is.
fn align(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell_width = |row: &[String], column: usize| {
        // The last cell of a row needs no padding and so widens nothing.
        row.get(column)
            .filter(|_| column + 1 < row.len())
            .map_or(0, |cell| cell.chars().count())
    };
    let width = |column| {
        rows.iter()
            .map(|row| cell_width(row, column))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let cell = cell.replace('\n', "\\n"); // a name that draws lines of its own
            line += &format!("{cell:<width$}  ");
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A moment as RFC 3339 in UTC. `seconds` since 1970.
pub fn rfc3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar. Years are counted
/// from March, so that the leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// A length of time as people say it.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Bytes as people say them.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..=10_239 => format!("{bytes} B"),
        10_240..=10_485_759 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// `1 key`, `2 keys`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right_over_leap_days_and_centuries() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_814_313_600, "2027-06-30T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), shown);
        }
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\r\tc\nd"), "a\\u{1b}[2Jb\\r\\tc\nd");
    }

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows = [
            row(&["a", "bb", "c"]),
            row(&["äää", "b", ""]),
            row(&["one long cell alone"]),
        ];
        assert_eq!(
            align(&rows),
            ["a    bb  c", "äää  b", "one long cell alone"]
        );
    }

    #[test]
    fn a_full_disk_is_an_error_and_a_reader_that_left_is_none() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Out::new(Broken(io::ErrorKind::StorageFull));
        out.line("lost");
        assert_eq!(out.finish().unwrap_err().exit, Exit::Internal);
        let mut out = Out::new(Broken(io::ErrorKind::BrokenPipe));
        out.line("unread");
        assert!(out.finish().is_ok());
    }
}
