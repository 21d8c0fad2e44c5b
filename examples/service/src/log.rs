//! Logs that a new store begins with: MovieLens, a csv file, or a synthetic one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::protocol::Seeded;
use crate::store::NewEvent;

/// The latest time of an event: the end of the year 9999, in seconds since 1970.
pub(crate) const LATEST: u64 = 253_402_300_799;

/// An item: the id that requests name it by, and what the page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) id: u64,
    pub(crate) title: String,
}

/// Events and the items that they name.
pub(crate) struct Log {
    pub(crate) name: String,
    /// In the order of their times; ties in that of the file.
    pub(crate) events: Vec<NewEvent>,
    /// The item of each number that an event has.
    pub(crate) items: Vec<Item>,
}

/// Users, items and events of a synthetic log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) users: usize,
    pub(crate) items: usize,
    pub(crate) events: usize,
}

fn movielens_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/movielens-latest-small").join(name)
}

impl Log {
    /// The bundled MovieLens log with the titles of its movies; `None` where the repository's data are not there.
    pub(crate) fn movielens() -> Outcome<Option<Self>> {
        let path = movielens_file("ratings.csv.gz");
        if !path.exists() {
            return Ok(None);
        }
        let mut log = Self::open(&path)?;
        log.name = "MovieLens latest-small (2016), by GroupLens Research, under GroupLens' terms".into();
        let titles = movielens_file("movies.csv.gz");
        let mut reader = csv::Reader::from_reader(open(&titles)?);
        let mut of_id = HashMap::new();
        for record in reader.records() {
            let record = record?;
            let id = record.get(0).and_then(|id| id.parse::<u64>().ok());
            of_id.extend(id.zip(record.get(1).map(str::to_owned)));
        }
        for item in &mut log.items {
            item.title = of_id.remove(&item.id).unwrap_or_default();
        }
        Ok(Some(log))
    }

    /// Reads a csv file with the columns `user`, `item` and `timestamp` (or MovieLens' names of them): whole numbers; gzip-compressed if
    /// its name ends in `.gz`.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let name = path.display().to_string();
        let log = open(path).and_then(|source| Self::read(source, &name));
        log.map_err(|error| format!("{name}: {error}").into())
    }

    fn read(source: impl Read, name: &str) -> Outcome<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let titles = reader.headers()?.clone();
        let column = |names: &[&str]| {
            let matches = |title: &str| names.contains(&title.to_lowercase().replace('_', "").as_str());
            let found = titles.iter().position(matches);
            let got = || titles.iter().collect::<Vec<_>>().join(",");
            found.ok_or_else(|| {
                format!("line 1: expected the columns user, item and timestamp, got {:?}", got())
            })
        };
        let columns = [
            column(&["user", "userid"])?,
            column(&["item", "itemid", "movieid"])?,
            column(&["timestamp", "time"])?,
        ];
        let (mut events, mut items, mut numbers) = (Vec::new(), Vec::new(), HashMap::new());
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let line = record.position().map_or(0, csv::Position::line);
            let [user, item, time] = columns.map(|column| record.get(column).unwrap_or_default());
            let whole = |text: &str, what: &str| {
                let number = text.parse::<u64>().ok();
                number.ok_or_else(|| {
                    format!("line {line}: expected a whole number for the {what}, got {text:?}")
                })
            };
            let (user, id) = (whole(user, "user")?, whole(item, "item")?);
            let seconds = time.parse::<f64>().ok().filter(|time| (0.0..=LATEST as f64).contains(time));
            let time = seconds
                .ok_or_else(|| format!("line {line}: expected a time in seconds since 1970, got {time:?}"))?
                as u64;
            let next = u32::try_from(items.len()).map_err(|_| "more than 2^32 items")?;
            let item = *numbers.entry(id).or_insert_with(|| {
                items.push(Item { id, title: String::new() });
                next
            });
            events.push(NewEvent { user, item, time });
        }
        if events.is_empty() {
            return Err("there are no events after the header".into());
        }
        events.sort_by_key(|event| event.time);
        Ok(Self { name: name.into(), events, items })
    }

    /// A log that needs no data: users have favourites among groups of items, and come back to them.
    pub(crate) fn synthetic(sizes: Sizes, seed: u64) -> Self {
        const GROUPS: usize = 12;
        let Sizes { users, items, events } = sizes;
        let mut random = Seeded::new(seed);
        let favourites: Vec<usize> = (0..users).map(|_| random.below(GROUPS)).collect();
        let event = |time: u64| {
            let user = random.below(users);
            let any = random.below(items);
            // Two of three in the favourite group: items whose number has its remainder.
            let near = any - any % GROUPS + favourites[user];
            let item = if random.below(3) > 0 && near < items { near } else { any };
            // Ids that are not the numbers of rows, as in real logs.
            NewEvent { user: user as u64 + 1, item: item as u32, time: 1_600_000_000 + 60 * time }
        };
        let events = (0..events as u64).map(event).collect();
        let item = |number: usize| Item {
            id: 1000 + 3 * number as u64,
            title: format!("item {number} of group {}", number % GROUPS),
        };
        Self {
            name: format!("a synthetic log of {users} users and {items} items"),
            events,
            items: (0..items).map(item).collect(),
        }
    }

    /// The items of each user, in order.
    pub(crate) fn by_user(&self) -> Vec<Vec<u32>> {
        let mut numbers = HashMap::new();
        let mut users: Vec<Vec<u32>> = Vec::new();
        for event in &self.events {
            let number = *numbers.entry(event.user).or_insert(users.len());
            if number == users.len() {
                users.push(Vec::new());
            }
            users[number].push(event.item);
        }
        users
    }
}

fn open(path: &Path) -> Outcome<Box<dyn Read>> {
    let file = BufReader::new(File::open(path)?);
    let zipped = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz"));
    Ok(if zipped { Box::new(flate2::bufread::MultiGzDecoder::new(file)) } else { Box::new(file) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Log, String> {
        Log::read(text.as_bytes(), "test").map_err(|error| error.to_string())
    }

    #[test]
    fn events_come_in_time_order_with_the_ids_of_their_items() {
        let log = read("timestamp,userId,item,extra\n3,7,50,\n1,7,60,\n1,9,50,\n").unwrap();
        let event = |user, item, time| NewEvent { user, item, time };
        assert_eq!(log.events, [event(7, 1, 1), event(9, 0, 1), event(7, 0, 3)]);
        assert_eq!(log.items.iter().map(|item| item.id).collect::<Vec<_>>(), [50, 60]);
        assert_eq!(log.by_user(), [vec![1, 0], vec![0]]);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, words) in [
            ("user,item,time\n1,2,noon\n", "line 2: expected a time"),
            ("user,item,time\n1,2,NaN\n", "line 2: expected a time"),
            ("user,item,time\n1,2,-1\n", "line 2: expected a time"),
            ("user,item,time\nann,2,1\n", "line 2: expected a whole number for the user"),
            ("user,item\n1,2\n", "expected the columns user, item and timestamp"),
            ("user,item,time\n", "no events"),
        ] {
            let error = read(text).err().unwrap();
            assert!(error.contains(words), "{error:?} should contain {words:?}");
        }
    }
}
