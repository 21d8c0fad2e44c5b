//! A user's SDIM table as bytes: how many events it holds, of which model, then what `Sdim::save_tables` writes.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | how many of the user's events are in the table |
//! | 8..12 | fingerprint of the model |
//! | 12..16 | CRC-32 of bytes 0..12 and of 16.. |

use longseq::prelude::*;
use longseq::{Cpu, SavedTables};

use crate::Outcome;
use crate::model::Arrays;

const HEAD: usize = 16;

/// The bytes of a table that holds so many events.
pub(crate) fn encode(arrays: &Arrays, fingerprint: u32, events: u64, table: &[f32]) -> Outcome<Vec<u8>> {
    let saved = arrays.sdim().save_tables(&arrays.rotations, table)?;
    let mut bytes = Vec::with_capacity(HEAD + saved.len());
    bytes.extend(events.to_le_bytes());
    bytes.extend(fingerprint.to_le_bytes());
    bytes.extend(checksum(&bytes, &saved).to_le_bytes());
    bytes.extend(saved);
    Ok(bytes)
}

/// The number of events and the table in such bytes. Refuses changed ones, and those of another model.
pub(crate) fn decode(arrays: &Arrays, fingerprint: u32, bytes: &[u8]) -> Outcome<(u64, Vec<f32>)> {
    let Some((head, saved)) = bytes.split_at_checked(HEAD) else {
        return Err(format!("expected a head of {HEAD} bytes, got {} bytes", bytes.len()).into());
    };
    let (numbers, sum) = head.split_at(12);
    if sum != checksum(numbers, saved).to_le_bytes() {
        return Err("the bytes have changed since they were written".into());
    }
    let (events, model) = numbers.split_at(8);
    if model != fingerprint.to_le_bytes() {
        return Err("it is of another model".into());
    }
    // Copied to where `f32` are aligned.
    let saved = Cpu::new().upload(saved)?;
    let tables = SavedTables::read(&saved)?;
    let table = tables.tables::<f32>(&arrays.sdim(), &arrays.rotations)?;
    if tables.users() != 1 {
        return Err(format!("expected the table of one user, got those of {}", tables.users()).into());
    }
    Ok((u64::from_le_bytes(events.try_into()?), table.to_vec()))
}

fn checksum(numbers: &[u8], saved: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(numbers);
    hash.update(saved);
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, Sizes};
    use crate::model::Model;

    #[test]
    fn tables_come_back_and_changed_bytes_do_not() {
        let log = Log::synthetic(Sizes { users: 5, items: 9, events: 50 }, 1);
        let arrays = Model::new(&log, 4).unwrap().arrays;
        let table: Vec<f32> = (0..arrays.sdim().table_length(1).unwrap()).map(|i| i as f32).collect();
        let bytes = encode(&arrays, 7, 50, &table).unwrap();
        assert_eq!(decode(&arrays, 7, &bytes).unwrap(), (50, table.clone()));
        assert!(decode(&arrays, 8, &bytes).is_err());
        // The head, longseq's head and the elements.
        for at in (0..HEAD + 64).chain([bytes.len() - 1]) {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            assert!(decode(&arrays, 7, &changed).is_err(), "byte {at}");
            assert!(decode(&arrays, 7, &bytes[..at]).is_err(), "{at} bytes");
        }
        let two = encode(&arrays, 7, 50, &[&table[..], &table].concat()).unwrap();
        assert!(decode(&arrays, 7, &two).unwrap_err().to_string().contains("one user"));
    }
}
