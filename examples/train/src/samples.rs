//! What a step of training or of scoring reads, and where training draws it from.

use std::collections::BTreeSet;

use clap::ValueEnum;

use crate::Outcome;
use crate::protocol::{Request, Seeded};

/// Histories and candidates of some users, concatenated.
#[derive(Clone, Default)]
pub(crate) struct Sample {
    /// `[N]`: items, oldest first.
    pub(crate) history: Vec<u32>,
    /// How many of them each user has.
    pub(crate) lengths: Vec<usize>,
    /// `[M]`: items.
    pub(crate) targets: Vec<u32>,
    /// How many of them each user has.
    pub(crate) counts: Vec<usize>,
    /// `[M]`: 1 where there was a click, else 0.
    pub(crate) clicks: Vec<f32>,
}

impl Sample {
    /// Adds a user.
    pub(crate) fn push(&mut self, history: &[u32], candidates: &[(u32, f32)]) {
        self.history.extend(history);
        self.lengths.push(history.len());
        self.targets.extend(candidates.iter().map(|candidate| candidate.0));
        self.clicks.extend(candidates.iter().map(|candidate| candidate.1));
        self.counts.push(candidates.len());
    }

    /// Requests with the newest behaviours; the first candidate is the one that was met.
    pub(crate) fn of_requests(requests: &[Request], newest: usize) -> Self {
        let mut sample = Self::default();
        for request in requests {
            let click = |(place, &item): (usize, &u32)| (item, if place == 0 { 1.0 } else { 0.0 });
            let candidates: Vec<_> = request.candidates.iter().enumerate().map(click).collect();
            sample.push(end_of(&request.history, newest), &candidates);
        }
        sample
    }

    /// The number of users.
    pub(crate) fn users(&self) -> usize {
        self.lengths.len()
    }

    /// The same with no more than so many of each user's newest behaviours.
    pub(crate) fn newest(&self, newest: usize) -> Self {
        let (mut history, mut start) = (Vec::new(), 0);
        for &length in &self.lengths {
            history.extend(end_of(&self.history[start..start + length], newest));
            start += length;
        }
        let lengths = self.lengths.iter().map(|&length| length.min(newest)).collect();
        Self { history, lengths, ..self.clone() }
    }
}

fn end_of(history: &[u32], newest: usize) -> &[u32] {
    &history[history.len().saturating_sub(newest)..]
}

/// An event to predict: a user, and its place in the user's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) user: u32,
    pub(crate) place: u32,
}

/// Which items training draws negatives from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NegativesFrom {
    /// Those of the training part.
    Met,
    /// Those of the whole log, also the ones that only held-out events have.
    All,
}

impl NegativesFrom {
    /// The name on the command line, and in the header of a file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::All => "all",
        }
    }
}

/// The training part of a log.
pub(crate) struct TrainingSet {
    users: Vec<Vec<u32>>,
    /// Each user's items, ascending: what no negative may be.
    met: Vec<Vec<u32>>,
    items: usize,
    /// What negatives are drawn from, ascending.
    pool: Vec<u32>,
    places: Vec<Place>,
}

/// How many behaviours there must be before an event that is predicted.
const FIRST: usize = 5;

impl TrainingSet {
    /// Of each user's events in time order, without those that are held out.
    ///
    /// # Errors
    /// If there is nothing to predict.
    pub(crate) fn new(users: Vec<Vec<u32>>, items: usize, negatives_from: NegativesFrom) -> Outcome<Self> {
        let items_of = |events: &Vec<u32>| {
            let mut items = events.clone();
            items.sort_unstable();
            items.dedup();
            items
        };
        let met: Vec<Vec<u32>> = users.iter().map(items_of).collect();
        let pool: Vec<u32> = match negatives_from {
            NegativesFrom::Met => {
                let all: BTreeSet<u32> = met.iter().flatten().copied().collect();
                all.into_iter().collect()
            }
            NegativesFrom::All => (0..u32::try_from(items)?).collect(),
        };
        let mut places = Vec::new();
        for (user, events) in users.iter().enumerate() {
            // Who has met every one of them has no negatives.
            if met[user].len() < pool.len() {
                let user = u32::try_from(user)?;
                places.extend((FIRST..events.len()).map(|place| Place { user, place: place as u32 }));
            }
        }
        if places.is_empty() {
            return Err(format!("no user has more than {FIRST} events before the two that are held out, and items left for negatives: there is nothing to train on").into());
        }
        Ok(Self { users, met, items, pool, places })
    }

    /// How often the users have met each item.
    pub(crate) fn meetings(&self) -> Vec<u32> {
        let mut meetings = vec![0; self.items];
        self.users.iter().flatten().for_each(|&item| meetings[item as usize] += 1);
        meetings
    }

    /// How many events can be predicted.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The number of behaviours before an event.
    pub(crate) fn length(&self, place: Place, newest: usize) -> usize {
        newest.min(place.place as usize)
    }

    /// So many events, each at most once.
    pub(crate) fn draw(&self, count: usize, random: &mut Seeded) -> Vec<Place> {
        let mut places = self.places.clone();
        random.shuffle(&mut places);
        places.truncate(count);
        places
    }

    /// Each event after the newest behaviours before it, and so many items that its user has not met, drawn uniformly.
    pub(crate) fn sample(
        &self,
        places: &[Place],
        newest: usize,
        negatives: usize,
        random: &mut Seeded,
    ) -> Sample {
        let mut sample = Sample::default();
        let mut candidates = Vec::with_capacity(1 + negatives);
        for &Place { user, place } in places {
            let (user, place) = (user as usize, place as usize);
            candidates.clear();
            candidates.push((self.users[user][place], 1.0));
            while candidates.len() <= negatives {
                let item = self.pool[random.below(self.pool.len())];
                if self.met[user].binary_search(&item).is_err() {
                    candidates.push((item, 0.0));
                }
            }
            sample.push(end_of(&self.users[user][..place], newest), &candidates);
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_predicted_from_those_before_them() {
        let users = vec![vec![7, 1, 2, 3, 4, 5, 6], vec![1, 2, 3], vec![8, 1, 1, 1, 1, 9]];
        let set = TrainingSet::new(users.clone(), 40, NegativesFrom::All).unwrap();
        assert_eq!(set.len(), 3);
        let mut random = Seeded::new(1);
        let places = set.draw(10, &mut random);
        assert_eq!(places.len(), 3);
        let sample = set.sample(&places, 4, 3, &mut random);
        assert_eq!(sample.lengths, [4; 3]);
        assert_eq!(sample.clicks, [1.0, 0.0, 0.0, 0.0].repeat(3));
        for (index, Place { user, place }) in places.into_iter().enumerate() {
            let (events, place) = (&users[user as usize], place as usize);
            assert_eq!(sample.history[4 * index..][..4], events[place - 4..place]);
            let candidates = &sample.targets[4 * index..][..4];
            assert_eq!(candidates[0], events[place]);
            assert!(candidates[1..].iter().all(|item| !events.contains(item)));
        }
    }

    #[test]
    fn negatives_are_items_that_somebody_has_met() {
        let users = vec![vec![0, 1, 2, 3, 4, 5], vec![20, 30]];
        let drawn = |negatives_from| {
            let set = TrainingSet::new(users.clone(), 40, negatives_from).unwrap();
            let mut random = Seeded::new(1);
            let places = set.draw(1, &mut random);
            set.sample(&places, 4, 200, &mut random).targets[1..].iter().copied().collect::<BTreeSet<u32>>()
        };
        assert_eq!(drawn(NegativesFrom::Met), BTreeSet::from([20, 30]));
        // 200 draws from 34 items: all but certainly more than half of them.
        let all = drawn(NegativesFrom::All);
        assert!(all.len() > 17 && all.iter().all(|item| (6..40).contains(item)), "{all:?}");
        let set = TrainingSet::new(users, 40, NegativesFrom::Met).unwrap();
        let met: Vec<u32> = set
            .meetings()
            .into_iter()
            .enumerate()
            .filter(|(_, met)| *met > 0)
            .map(|(item, _)| item as u32)
            .collect();
        assert_eq!(met, [0, 1, 2, 3, 4, 5, 20, 30]);
    }

    #[test]
    fn the_newest_behaviours_are_kept() {
        let mut sample = Sample::default();
        sample.push(&[1, 2, 3], &[(9, 1.0)]);
        sample.push(&[4], &[(8, 0.0), (7, 1.0)]);
        let newest = sample.newest(2);
        assert_eq!((newest.history, newest.lengths), (vec![2, 3, 4], vec![2, 1]));
        assert_eq!((newest.targets, newest.counts), (vec![9, 8, 7], vec![1, 2]));
        let request = Request { history: vec![1, 2, 3], candidates: vec![5, 6] };
        let sample = Sample::of_requests(&[request], 2);
        assert_eq!((sample.history, sample.clicks), (vec![2, 3], vec![1.0, 0.0]));
    }

    #[test]
    fn nothing_to_train_on_is_an_error() {
        assert!(TrainingSet::new(vec![vec![0; 5]], 9, NegativesFrom::All).is_err());
        // A user who has met every item has no negatives.
        let all = vec![vec![0, 1, 0, 1, 0, 1, 0]];
        assert!(TrainingSet::new(all.clone(), 2, NegativesFrom::All).is_err());
        assert!(TrainingSet::new(all, 3, NegativesFrom::Met).is_err());
    }
}
