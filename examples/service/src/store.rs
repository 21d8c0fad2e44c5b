//! The store: the log of events, which is the truth, and what can be made from it again. A transactional file (redb): a write
//! that was acknowledged is on disk, and a write that was cut short never happened.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::Outcome;
use crate::log::{Item, Log};
use crate::model::{Arrays, Model};

/// User and number of the event among those of the user, from 0: item and time.
const EVENTS: TableDefinition<(u64, u64), (u32, u64)> = TableDefinition::new("events");
/// Number of events of a user, and the number of the newest among all events.
const USERS: TableDefinition<u64, (u64, u64)> = TableDefinition::new("users");
/// An item's id and title.
const ITEMS: TableDefinition<u32, (u64, &str)> = TableDefinition::new("items");
/// Arrays of the model.
const ARRAYS: TableDefinition<&str, &[u8]> = TableDefinition::new("arrays");
/// SDIM's table of a user, as `snapshot.rs` writes it.
const SNAPSHOTS: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshots");
/// Numbers: `format`, `width`, `fingerprint` of the model, `events` so far.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

/// The only format so far.
const FORMAT: u64 = 1;
/// Bytes of the file that are kept in memory.
const CACHE: usize = 64 << 20;

/// An event that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub(crate) user: u64,
    /// The number of the item's row.
    pub(crate) item: u32,
    /// Seconds since 1970.
    pub(crate) time: u64,
}

/// An event that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) user: u64,
    /// Its number among the user's events.
    pub(crate) number: u64,
    pub(crate) item: u32,
}

/// SDIM's table of a user, as bytes.
pub(crate) struct Snapshot {
    pub(crate) user: u64,
    pub(crate) bytes: Vec<u8>,
}

/// An open store. Another process that opens the same file is refused.
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens a store, and makes it from a log if there is none.
    pub(crate) fn open(
        path: &Path,
        width: usize,
        log: impl FnOnce() -> Outcome<Log>,
    ) -> Outcome<(Self, Model)> {
        let in_file =
            |error: Box<dyn std::error::Error + Send + Sync>| format!("{}: {error}", path.display());
        let open = || -> Outcome<(Self, Model)> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let store = Self { database: Database::builder().set_cache_size(CACHE).create(path)? };
            let model = match store.model()? {
                Some(model) => model,
                None => store.create(&log()?, width)?,
            };
            Ok((store, model))
        };
        Ok(open().map_err(in_file)?)
    }

    /// Writes a log and its model in one transaction: a store is whole, or new.
    fn create(&self, log: &Log, width: usize) -> Outcome<Model> {
        let model = Model::new(log, width)?;
        let write = self.database.begin_write()?;
        {
            let mut items = write.open_table(ITEMS)?;
            for (item, number) in model.items.iter().zip(0..) {
                items.insert(number, (item.id, item.title.as_str()))?;
            }
            let mut arrays = write.open_table(ARRAYS)?;
            for (name, bytes) in bytes_of(&model.arrays) {
                arrays.insert(name, bytes)?;
            }
            let mut numbers = write.open_table(NUMBERS)?;
            numbers.insert("format", FORMAT)?;
            numbers.insert("width", width as u64)?;
            numbers.insert("fingerprint", u64::from(model.arrays.fingerprint()))?;
            write.open_table(SNAPSHOTS)?;
        }
        append(&write, &log.events)?;
        write.commit()?;
        Ok(model)
    }

    /// The model; `None` in a new file.
    fn model(&self) -> Outcome<Option<Model>> {
        let read = self.database.begin_read()?;
        let numbers = match read.open_table(NUMBERS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            numbers => numbers?,
        };
        let number = |name: &str| -> Outcome<u64> {
            Ok(numbers.get(name)?.ok_or_else(|| format!("not a store of this program: no {name}"))?.value())
        };
        if number("format")? != FORMAT {
            return Err(format!("expected format {FORMAT}, got {}", number("format")?).into());
        }
        let mut items = Vec::new();
        for entry in read.open_table(ITEMS)?.iter()? {
            let (_, item) = entry?;
            let (id, title) = item.value();
            items.push(Item { id, title: title.into() });
        }
        let table = read.open_table(ARRAYS)?;
        let bytes = |name: &str| -> Outcome<Vec<u8>> {
            Ok(table.get(name)?.ok_or_else(|| format!("no {name}"))?.value().to_vec())
        };
        let floats =
            |name: &str| -> Outcome<Vec<f32>> { Ok(bytemuck::pod_collect_to_vec(&whole(bytes(name)?)?)) };
        let arrays = Arrays {
            width: usize::try_from(number("width")?)?,
            embeddings: floats("embeddings")?,
            rotations: floats("rotations")?,
            signatures: bytes("signatures")?,
            popularity: bytemuck::pod_collect_to_vec(&whole(bytes("popularity")?)?),
        };
        if u64::from(arrays.fingerprint()) != number("fingerprint")? {
            return Err("the embeddings have changed since they were written: the file is damaged".into());
        }
        Ok(Some(Model::of(items, arrays)?))
    }

    /// Writes events and snapshots, all or none. They are on disk when this returns.
    pub(crate) fn write(&self, events: &[NewEvent], snapshots: &[Snapshot]) -> Outcome<Vec<Written>> {
        let write = self.database.begin_write()?;
        let written = append(&write, events)?;
        {
            let mut table = write.open_table(SNAPSHOTS)?;
            for snapshot in snapshots {
                table.insert(snapshot.user, &snapshot.bytes[..])?;
            }
        }
        write.commit()?;
        Ok(written)
    }

    /// How many events a user has.
    pub(crate) fn count(&self, user: u64) -> Outcome<u64> {
        let users = self.database.begin_read()?.open_table(USERS)?;
        Ok(users.get(user)?.map_or(0, |entry| entry.value().0))
    }

    /// Items and times of a user's events from a number on, oldest first.
    pub(crate) fn events(&self, user: u64, first: u64) -> Outcome<Vec<(u32, u64)>> {
        let table = self.database.begin_read()?.open_table(EVENTS)?;
        let entries = table.range((user, first)..=(user, u64::MAX))?;
        entries.map(|entry| Ok(entry?.1.value())).collect()
    }

    /// A user's snapshot.
    pub(crate) fn snapshot(&self, user: u64) -> Outcome<Option<Vec<u8>>> {
        let table = self.database.begin_read()?.open_table(SNAPSHOTS)?;
        Ok(table.get(user)?.map(|bytes| bytes.value().to_vec()))
    }

    /// The first users by id, with their numbers of events.
    pub(crate) fn users(&self, most: usize) -> Outcome<Vec<(u64, u64)>> {
        let users = self.database.begin_read()?.open_table(USERS)?;
        let entries = users.iter()?.take(most);
        entries
            .map(|entry| entry.map(|(user, entry)| (user.value(), entry.value().0)).map_err(Into::into))
            .collect()
    }

    /// The users of the newest events, the last of them last.
    pub(crate) fn latest_users(&self, most: usize) -> Outcome<Vec<u64>> {
        let users = self.database.begin_read()?.open_table(USERS)?;
        let mut all = Vec::new();
        for entry in users.iter()? {
            let (user, entry) = entry?;
            all.push((entry.value().1, user.value()));
        }
        all.sort_unstable();
        Ok(all[all.len().saturating_sub(most)..].iter().map(|&(_, user)| user).collect())
    }

    /// Numbers of all users and of all events.
    pub(crate) fn totals(&self) -> Outcome<(u64, u64)> {
        use redb::ReadableTableMetadata;
        let read = self.database.begin_read()?;
        Ok((read.open_table(USERS)?.len()?, read.open_table(EVENTS)?.len()?))
    }
}

/// Gives each event its number, and writes it.
fn append(write: &redb::WriteTransaction, events: &[NewEvent]) -> Outcome<Vec<Written>> {
    let mut table = write.open_table(EVENTS)?;
    let mut users = write.open_table(USERS)?;
    let mut numbers = write.open_table(NUMBERS)?;
    let first = numbers.get("events")?.map_or(0, |number| number.value());
    let mut written = Vec::with_capacity(events.len());
    for (&NewEvent { user, item, time }, of_all) in events.iter().zip(first..) {
        let number = users.get(user)?.map_or(0, |entry| entry.value().0);
        table.insert((user, number), (item, time))?;
        users.insert(user, (number + 1, of_all))?;
        written.push(Written { user, number, item });
    }
    numbers.insert("events", first + events.len() as u64)?;
    Ok(written)
}

fn bytes_of(arrays: &Arrays) -> [(&'static str, &[u8]); 4] {
    [
        ("embeddings", bytemuck::cast_slice(&arrays.embeddings)),
        ("rotations", bytemuck::cast_slice(&arrays.rotations)),
        ("signatures", &arrays.signatures),
        ("popularity", bytemuck::cast_slice(&arrays.popularity)),
    ]
}

/// Bytes that are a whole number of words of four.
fn whole(bytes: Vec<u8>) -> Outcome<Vec<u8>> {
    if bytes.len().is_multiple_of(4) {
        return Ok(bytes);
    }
    Err(format!("expected words of four bytes, got {} bytes", bytes.len()).into())
}
