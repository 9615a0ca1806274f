//! How answers look to people: columns, sizes, times.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::clock::Millis;

/// Rows in columns under their names, in capitals. Every row has as many cells as there are names.
pub(super) fn columns(names: Vec<&str>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let heads = names
        .iter()
        .map(|name| name.replace('_', " ").to_uppercase());
    let mut lines = vec![heads.collect::<Vec<_>>()];
    lines.extend(rows);
    let widths: Vec<usize> = (0..names.len())
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(row, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text.trim_end().to_owned()
}

/// A time as RFC 3339, whole seconds.
pub(super) fn date(time: Millis) -> String {
    OffsetDateTime::from_unix_timestamp(time.div_euclid(1000))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| time.to_string())
}

/// Bytes, exactly and for people.
pub(super) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = None;
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = Some(next);
    }
    match unit {
        Some(unit) => format!("{bytes}  ({value:.1} {unit})"),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "7"], ["long-name", "-"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            columns(vec!["name", "logical_bytes"], rows.into_iter()),
            "NAME       LOGICAL BYTES\na          7\nlong-name  -"
        );
    }

    #[test]
    fn sizes_and_dates_read_well() {
        assert_eq!(size(0), "0");
        assert_eq!(size(1023), "1023");
        assert_eq!(size(102_000), "102000  (99.6 KiB)");
        assert_eq!(size(u64::MAX), format!("{}  (16.0 EiB)", u64::MAX));
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(1_704_067_200_999), "2024-01-01T00:00:00Z");
    }
}
