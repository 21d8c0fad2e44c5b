//! A log with long-range interest whose right answer is known.
