//! Event logs: which user interacted with which item, and when.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::Outcome;

/// A log, grouped by user.
pub(crate) struct Log {
    /// Name shown in the report.
    pub(crate) name: String,
    /// Each user's items in time order; ties keep the order of the file.
    pub(crate) users: Vec<Vec<u32>>,
    /// Number of items; ids are `0..items`.
    pub(crate) items: usize,
}

/// Accepted names of the three columns, in lower case and without underscores.
const COLUMNS: [(&str, &[&str]); 3] = [
    ("user", &["user", "userid"]),
    ("item", &["item", "itemid", "movieid"]),
    ("timestamp", &["timestamp", "time"]),
];

impl Log {
    /// The bundled MovieLens log.
    pub(crate) fn movielens() -> Outcome<Self> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/movielens-latest-small/ratings.csv.gz");
        let mut log = Self::open(&path)?;
        log.name = "MovieLens latest-small (2016), by GroupLens Research, under GroupLens' terms".into();
        Ok(log)
    }

    /// Reads a csv file with the columns `user`, `item` and `timestamp`; gzip-compressed if its name ends in `.gz`.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let name = path.display().to_string();
        let in_file = |error: Box<dyn std::error::Error>| format!("{name}: {error}");
        let file = File::open(path).map_err(|error| in_file(error.into()))?;
        let file = BufReader::new(file);
        let log = if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz")) {
            Self::read(flate2::bufread::MultiGzDecoder::new(file), &name)
        } else {
            Self::read(file, &name)
        };
        Ok(log.map_err(in_file)?)
    }

    /// Reads csv from any source.
    pub(crate) fn read(source: impl Read, name: &str) -> Outcome<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let columns = find_columns(reader.headers()?)?;
        let (mut user_ids, mut item_ids) = (HashMap::new(), HashMap::new());
        let mut events: Vec<Vec<(f64, u32)>> = Vec::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let line = record.position().map_or(0, csv::Position::line);
            let [user, item, time] = columns.map(|column| record.get(column).unwrap_or_default());
            for (value, (column, _)) in [user, item].into_iter().zip(COLUMNS) {
                if value.is_empty() {
                    return Err(format!("line {line}: the {column} is empty").into());
                }
            }
            let time = match time.parse::<f64>() {
                Ok(time) if time.is_finite() => time,
                _ => {
                    let expected = "a number, such as seconds since 1970";
                    return Err(
                        format!("line {line}: expected a timestamp ({expected}), got {time:?}").into()
                    );
                }
            };
            let user = number(&mut user_ids, user)? as usize;
            if user == events.len() {
                events.push(Vec::new());
            }
            events[user].push((time, number(&mut item_ids, item)?));
        }
        if events.is_empty() {
            return Err("there are no events after the header".into());
        }
        let in_time_order = |mut events: Vec<(f64, u32)>| -> Vec<u32> {
            events.sort_by(|a, b| a.0.total_cmp(&b.0));
            events.into_iter().map(|(_, item)| item).collect()
        };
        let users = events.into_iter().map(in_time_order).collect();
        Ok(Self { name: name.into(), users, items: item_ids.len() })
    }

    /// A number that tells logs apart, also those that number the same items in another order: FNV-1a of each user's items.
    pub(crate) fn fingerprint(&self) -> u64 {
        let numbers = self.users.iter().flat_map(|items| items.iter().copied().chain([u32::MAX]));
        numbers.flat_map(u32::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// Number of events.
    pub(crate) fn events(&self) -> usize {
        self.users.iter().map(Vec::len).sum()
    }
}

/// Maps ids to consecutive numbers in order of first appearance.
fn number(ids: &mut HashMap<String, u32>, id: &str) -> Outcome<u32> {
    if let Some(&number) = ids.get(id) {
        return Ok(number);
    }
    let number = u32::try_from(ids.len()).map_err(|_| "more than 2^32 distinct ids")?;
    ids.insert(id.into(), number);
    Ok(number)
}

fn find_columns(header: &csv::StringRecord) -> Outcome<[usize; 3]> {
    let mut found = [0; 3];
    for (found, (column, names)) in found.iter_mut().zip(COLUMNS) {
        let matches = |title: &str| names.contains(&title.to_lowercase().replace('_', "").as_str());
        let got = || header.iter().collect::<Vec<_>>().join(",");
        let mut positions = (0..header.len()).filter(|&at| matches(&header[at]));
        *found = positions.next().ok_or_else(|| {
            let got = got();
            format!(
                "line 1: expected a header with the columns user, item and timestamp; no {column} in {got:?}"
            )
        })?;
        if positions.next().is_some() {
            return Err(format!(
                "line 1: expected one column for the {column}; more than one in {:?}",
                got()
            )
            .into());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Log, String> {
        Log::read(text.as_bytes(), "test").map_err(|error| error.to_string())
    }

    #[test]
    fn events_come_in_time_order_and_equal_times_in_file_order() {
        let log = read("timestamp,user,item,extra\n3,ann,x,\n1,ann,y,\n1,ann,z,\n2,bob,x,\n").unwrap();
        // Items are numbered as they first appear: x 0, y 1, z 2.
        assert_eq!(log.users, [vec![1, 2, 0], vec![0]]);
        assert_eq!((log.items, log.events()), (3, 4));
    }

    #[test]
    fn fingerprints_know_the_order_of_items() {
        let of = |text: &str| read(text).unwrap().fingerprint();
        let one = of("user,item,time\na,x,1\na,y,2\nb,x,3\n");
        assert_eq!(one, of("user,item,time\nc,v,1\nc,w,2\nd,v,3\n"));
        // The same events, items numbered otherwise; one event at another user.
        assert_ne!(one, of("user,item,time\na,y,2\na,x,1\nb,x,3\n"));
        assert_ne!(one, of("user,item,time\na,x,1\nb,y,2\nb,x,3\n"));
    }

    #[test]
    fn column_names_of_movielens_and_of_spreadsheets_are_accepted() {
        assert!(read("userId,movieId,rating,timestamp\n1,2,3.5,4\n").is_ok());
        assert!(read("\u{feff}User, Item_ID, Time\r\n\"a, b\",2,1e9\r\n").is_ok());
    }

    #[test]
    fn errors_name_the_line() {
        for (text, words) in [
            ("user,item,timestamp\na,b,1\na,b,noon\n", "line 3: expected a timestamp"),
            ("user,item,timestamp\na,b,NaN\n", "line 2: expected a timestamp"),
            ("user,item,timestamp\na,,1\n", "line 2: the item is empty"),
            ("user,item,timestamp\na,b\n", "line: 2"),
            ("user,item\na,b\n", "no timestamp in \"user,item\""),
            (
                "user,item,item,timestamp\na,b,c,1\n",
                "one column for the item; more than one in \"user,item,item,timestamp\"",
            ),
            ("user,item,movieId,time\na,b,c,1\n", "one column for the item"),
            ("", "line 1: expected a header"),
            ("user,item,timestamp\n", "no events"),
        ] {
            let error = read(text).err().unwrap();
            assert!(error.contains(words), "{error:?} should contain {words:?}");
        }
    }

    #[test]
    fn the_movielens_log_is_complete() {
        let log = Log::movielens().unwrap();
        assert_eq!((log.users.len(), log.items, log.events()), (671, 9066, 100_004));
        assert_eq!(log.users.iter().map(Vec::len).max(), Some(2391));
    }
}
