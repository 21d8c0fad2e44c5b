//! Text of the report: tables, notes and numbers.

/// A text table: first column left-aligned, all others right-aligned.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("{cell:<width$}", width = widths[0]),
            _ => format!("{cell:>width$}", width = widths[column]),
        });
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
        if index == 0 {
            lines.push("-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)));
        }
    }
    lines.join("\n")
}

/// A list item, wrapped at 110 columns.
pub(crate) fn note(text: &str) -> String {
    let mut lines = vec![String::from("-")];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 110 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines.join("\n")
}

/// An integer with thousands separators: 12,345.
pub(crate) fn count(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun, plural unless the number is 1.
pub(crate) fn counted(value: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// Three significant figures without an exponent: 0.00123, 1.23, 123, 12,345.
pub(crate) fn figures(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return format!("{value}");
    }
    // Values that round up to a power of ten need one decimal less.
    let decimals = (2 - (value.abs() * 1.0005).log10().floor() as i64).clamp(0, 9) as usize;
    if value >= 1000.0 { count(value.round() as usize) } else { format!("{value:.decimals$}") }
}

/// A rate with an SI prefix: 1.23 M.
pub(crate) fn rate(value: f64) -> String {
    for (size, prefix) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= size {
            return format!("{} {prefix}", figures(value / size));
        }
    }
    figures(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted() {
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 0.0123, 1.234, 99.96, 123.4, 999.7, 12345.6].map(figures),
            ["0", "0.0123", "1.23", "100", "123", "1000", "12,346"]
        );
        assert_eq!([12.0, 1.5e3, 2.25e6].map(rate), ["12.0", "1.50 k", "2.25 M"]);
        assert_eq!([counted(1, "user"), counted(2, "user")], ["1 user", "2 users"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows =
            [["name", "value"], ["α", "1"], ["longer", "1,000"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "name    value\n-------------\nα           1\nlonger  1,000");
    }

    #[test]
    fn notes_wrap_between_words() {
        let note = note(&"word ".repeat(40));
        assert!(note.starts_with("- word") && note.lines().all(|line| line.len() <= 110));
        assert_eq!(note.lines().count(), 2);
    }
}
