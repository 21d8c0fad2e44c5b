//! Leave-last-out evaluation: the held-out events, the known events, and the candidates of each request.

use std::collections::HashSet;

use longseq::Jagged;

use crate::Outcome;
use crate::data::Log;

/// Parameters of the protocol.
pub(crate) struct Protocol {
    /// Minimum number of events a user needs for a request.
    pub(crate) min_events: usize,
    /// Maximum number of requests, one per user; the users are sampled with `seed`.
    pub(crate) max_requests: usize,
    /// Number of negatives ranked together with the held-out item.
    pub(crate) negatives: usize,
    /// Seed for sampling users and negatives.
    pub(crate) seed: u64,
}

/// A log split into known events and requests.
pub(crate) struct Split {
    /// One per sampled user.
    pub(crate) requests: Vec<Request>,
    /// Each user's events without the held-out one; embeddings are built from these alone.
    pub(crate) known: Vec<Vec<u32>>,
    /// Number of users with at least `min_events` events.
    pub(crate) eligible: usize,
    /// Number of sampled users skipped because they interacted with every item, which leaves no negatives.
    pub(crate) without_negatives: usize,
}

/// One user's history and the candidates to rank.
#[derive(Clone)]
pub(crate) struct Request {
    /// The items of all events before the held-out one, in time order.
    pub(crate) history: Vec<u32>,
    /// The held-out item, then the negatives.
    pub(crate) candidates: Vec<u32>,
}

impl Split {
    /// Splits a log.
    pub(crate) fn new(log: &Log, protocol: &Protocol) -> Outcome<Self> {
        let eligible: Vec<usize> = (0..log.users.len())
            .filter(|&user| log.users[user].len() >= protocol.min_events.max(2))
            .collect();
        if eligible.is_empty() {
            let most = log.users.iter().map(Vec::len).max().unwrap_or(0);
            return Err(format!(
                "no user has {} events (the maximum is {most}): a request needs a history and one event to hold \
                 out; see --min-events",
                protocol.min_events.max(2)
            )
            .into());
        }
        let mut known = log.users.clone();
        for &user in &eligible {
            known[user].pop();
        }
        let mut random = Seeded::new(protocol.seed);
        let mut sampled = eligible.clone();
        if sampled.len() > protocol.max_requests {
            random.shuffle(&mut sampled);
            sampled.truncate(protocol.max_requests);
            sampled.sort_unstable();
        }
        let (mut requests, mut without_negatives) = (Vec::new(), 0);
        for user in sampled {
            let candidates = candidates(&log.users[user], log.items, protocol.negatives, &mut random);
            if candidates.len() < 2 {
                without_negatives += 1;
            } else {
                requests.push(Request { history: known[user].clone(), candidates });
            }
        }
        if requests.is_empty() {
            return Err(
                "every sampled user interacted with every item, so there are no negatives: the log needs \
                        more items"
                    .into(),
            );
        }
        Ok(Self { requests, known, eligible: eligible.len(), without_negatives })
    }
}

/// A user's last item, then up to `negatives` distinct items that the user has not interacted with, sampled uniformly.
fn candidates(events: &[u32], items: usize, negatives: usize, random: &mut Seeded) -> Vec<u32> {
    let mut taken: HashSet<u32> = events.iter().copied().collect();
    let mut candidates: Vec<u32> = events.last().copied().into_iter().collect();
    if items - taken.len() <= negatives {
        candidates.extend((0..items as u32).filter(|item| !taken.contains(item)));
        return candidates;
    }
    while candidates.len() <= negatives {
        let item = random.below(items) as u32;
        if taken.insert(item) {
            candidates.push(item);
        }
    }
    candidates
}

/// A batch of requests in the layout that the operations take.
pub(crate) struct Batch {
    /// `[N]`: the items of all histories, concatenated.
    pub(crate) history: Vec<u32>,
    /// The history of each request.
    pub(crate) histories: Jagged,
    /// `[M]`: the candidates of all requests, concatenated.
    pub(crate) candidates: Vec<u32>,
    /// The candidates of each request.
    pub(crate) targets: Jagged,
}

impl Batch {
    /// Concatenates requests.
    pub(crate) fn new(requests: &[Request]) -> Outcome<Self> {
        let lengths =
            |of: fn(&Request) -> &Vec<u32>| requests.iter().map(|r| of(r).len()).collect::<Vec<_>>();
        let rows = |of: fn(&Request) -> &Vec<u32>| requests.iter().flat_map(of).copied().collect();
        Ok(Self {
            history: rows(|request| &request.history),
            histories: Jagged::from_lengths(&lengths(|request| &request.history))?,
            candidates: rows(|request| &request.candidates),
            targets: Jagged::from_lengths(&lengths(|request| &request.candidates))?,
        })
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): the same numbers on every machine and in every version.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number in `0..end`, by multiplication; the bias is below `end / 2^64`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, values: &mut [T]) {
        for end in (2..=values.len()).rev() {
            values.swap(end - 1, self.below(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(users: &[&[u32]], items: usize) -> Log {
        Log { name: "test".into(), users: users.iter().map(|events| events.to_vec()).collect(), items }
    }

    const PROTOCOL: Protocol = Protocol { min_events: 3, max_requests: 100, negatives: 5, seed: 1 };

    #[test]
    fn the_last_event_is_held_out_of_the_known_ones() {
        let log = log(&[&[4, 2, 9], &[7, 8], &[1, 2, 3, 5]], 40);
        let split = Split::new(&log, &PROTOCOL).unwrap();
        assert_eq!(split.known, [vec![4, 2], vec![7, 8], vec![1, 2, 3]]);
        assert_eq!(split.eligible, 2);
        let requests: Vec<_> =
            split.requests.iter().map(|r| (r.history.as_slice(), r.candidates[0])).collect();
        assert_eq!(requests, [(&[4, 2][..], 9), (&[1, 2, 3][..], 5)]);
    }

    #[test]
    fn negatives_are_distinct_items_without_interactions() {
        let log = Log::movielens().unwrap();
        let protocol = Protocol { min_events: 5, max_requests: usize::MAX, negatives: 100, seed: 1 };
        let split = Split::new(&log, &protocol).unwrap();
        assert_eq!(split.requests.len(), 671);
        for (request, events) in split.requests.iter().zip(&log.users) {
            assert_eq!(request.candidates[0], *events.last().unwrap());
            assert_eq!(request.history, events[..events.len() - 1]);
            let negatives: HashSet<u32> = request.candidates[1..].iter().copied().collect();
            assert_eq!(negatives.len(), 100);
            assert!(negatives.iter().all(|item| !events.contains(item)));
        }
    }

    #[test]
    fn the_seed_determines_the_sample() {
        let log = log(&[&[0, 1, 2], &[3, 4, 5], &[6, 7, 8]], 1000);
        let draw = |seed| {
            let split = Split::new(&log, &Protocol { seed, max_requests: 2, ..PROTOCOL }).unwrap();
            split.requests.into_iter().map(|request| request.candidates).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(1).len(), 2);
    }

    #[test]
    fn few_items_give_fewer_negatives_and_none_is_an_error() {
        let split = Split::new(&log(&[&[0, 1, 2]], 5), &PROTOCOL).unwrap();
        assert_eq!(split.requests[0].candidates, [2, 3, 4]);
        let error = Split::new(&log(&[&[0, 1, 2]], 3), &PROTOCOL).err().unwrap().to_string();
        assert!(error.contains("more items"), "{error}");
        let error = Split::new(&log(&[&[0, 1]], 9), &PROTOCOL).err().unwrap().to_string();
        assert!(error.contains("no user has 3 events (the maximum is 2)"), "{error}");
    }
}
