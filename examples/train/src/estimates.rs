//! Quality of the test with bootstrap intervals over its users.

use crate::metrics::{self, Quality};
use crate::protocol::Seeded;

/// How often users are drawn anew.
const DRAWS: usize = 1000;
/// The share of draws outside the interval, on each side.
const TAIL: f64 = 0.025;

/// A mean with the interval that 95 % of the draws fall into.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Quality of one system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimates {
    /// Over all pairs of a held-out item and a negative, those of different users, too.
    pub(crate) auc: Estimate,
    /// The mean of the users' own AUC: `rank`'s AUC.
    pub(crate) gauc: Estimate,
    /// HR@10.
    pub(crate) hit_rate: Estimate,
    /// NDCG@10.
    pub(crate) ndcg: Estimate,
}

impl Estimates {
    /// The means over runs, each with the scores of the same requests, whose first candidate is the held-out one.
    pub(crate) fn new(runs: &[&[Vec<f32>]]) -> Self {
        let runs: Vec<Run> = runs.iter().map(|scores| Run::new(scores)).collect();
        let users = runs.first().map_or(0, |run| run.users.len());
        let value = Self::means(&runs, &vec![1.0; users]);
        let mut random = Seeded::new(0);
        let mut draws = vec![Vec::new(); value.len()];
        for _ in 0..DRAWS {
            let mut weights = vec![0.0; users];
            (0..users).for_each(|_| weights[random.below(users)] += 1.0);
            for (draws, value) in draws.iter_mut().zip(Self::means(&runs, &weights)) {
                draws.push(value);
            }
        }
        let mut estimates = value.into_iter().zip(draws).map(|(value, mut draws)| {
            draws.sort_by(f64::total_cmp);
            let at = |share: f64| draws[(share * (DRAWS - 1) as f64).round() as usize];
            Estimate { value, low: at(TAIL), high: at(1.0 - TAIL) }
        });
        let mut next = || estimates.next().expect("four of them");
        Self { auc: next(), gauc: next(), hit_rate: next(), ndcg: next() }
    }

    /// AUC, GAUC, HR and NDCG where users count so often, over all runs.
    fn means(runs: &[Run], weights: &[f64]) -> [f64; 4] {
        let total = weights.iter().sum::<f64>().max(1.0);
        let mut sums = [0.0; 4];
        for run in runs {
            sums[0] += run.auc(weights);
            for (user, weight) in run.users.iter().zip(weights) {
                let of_user = [user.auc, user.hit_rate, user.ndcg];
                sums[1..].iter_mut().zip(of_user).for_each(|(sum, value)| *sum += weight * value / total);
            }
        }
        sums.map(|sum| sum / runs.len().max(1) as f64)
    }
}

/// Scores of one run.
struct Run {
    users: Vec<Quality>,
    /// All candidates of all users, ascending.
    candidates: Vec<Candidate>,
}

struct Candidate {
    score: f32,
    user: usize,
    is_held_out: bool,
}

impl Run {
    fn new(scores: &[Vec<f32>]) -> Self {
        let of_user = |(user, scores): (usize, &Vec<f32>)| {
            let candidate =
                |(place, &score): (usize, &f32)| Candidate { score, user, is_held_out: place == 0 };
            scores.iter().enumerate().map(candidate).collect::<Vec<_>>()
        };
        let mut candidates: Vec<Candidate> = scores.iter().enumerate().flat_map(of_user).collect();
        candidates.sort_by(|a, b| a.score.total_cmp(&b.score));
        Self { users: scores.iter().map(|scores| metrics::quality(scores)).collect(), candidates }
    }

    /// The share of pairs of a held-out item and a negative in which the item has the higher score; equal scores count half.
    fn auc(&self, weights: &[f64]) -> f64 {
        let (mut below, mut won, mut held_out) = (0.0, 0.0, 0.0);
        for tied in self.candidates.chunk_by(|a, b| a.score == b.score) {
            let (mut negatives, mut items) = (0.0, 0.0);
            for candidate in tied {
                let side = if candidate.is_held_out { &mut items } else { &mut negatives };
                *side += weights[candidate.user];
            }
            won += items * (below + negatives / 2.0);
            below += negatives;
            held_out += items;
        }
        if below * held_out > 0.0 { won / (below * held_out) } else { 0.5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(runs: &[&[Vec<f32>]]) -> [f64; 4] {
        let estimates = Estimates::new(runs);
        [estimates.auc, estimates.gauc, estimates.hit_rate, estimates.ndcg].map(|estimate| estimate.value)
    }

    #[track_caller]
    fn assert_values(got: [f64; 4], exact: [f64; 4]) {
        assert!(
            got.iter().zip(exact).all(|(got, exact)| (got - exact).abs() < 1e-12),
            "{got:?}, exact {exact:?}"
        );
    }

    #[test]
    fn auc_is_over_all_pairs_and_gauc_over_each_users_own() {
        // Each user ranks its own item first. Of the eight pairs of all users, 5 is below the other's 9.
        let scores = [vec![10.0, 9.0, 1.0], vec![5.0, 4.0, 3.0]];
        assert_values(values(&[&scores]), [7.0 / 8.0, 1.0, 1.0, 1.0]);
        // User 0: below one of two, rank 2. User 1: rank 3 of three. Pairs: 2 above 1 and 1.5 of four; 1 ties with 1, which counts half.
        let scores = [vec![2.0, 3.0, 1.0], vec![1.0, 1.5, 4.0]];
        let ndcg = (1.0 / 3f64.log2() + 0.5) / 2.0;
        assert_values(values(&[&scores]), [2.5 / 8.0, 0.25, 1.0, ndcg]);
    }

    #[test]
    fn equal_scores_are_worth_a_half_and_misses_nothing() {
        let scores = [vec![1.0; 31], vec![1.0; 31]];
        assert_values(values(&[&scores]), [0.5, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn runs_are_averaged() {
        let (right, wrong) = ([vec![1.0, 0.0]], [vec![0.0, 1.0]]);
        let ndcg = (1.0 + 1.0 / 3f64.log2()) / 2.0;
        assert_values(values(&[&right, &wrong]), [0.5, 0.5, 1.0, ndcg]);
    }

    #[test]
    fn intervals_are_those_of_the_draws() {
        // All users alike: every draw is the same.
        let alike = vec![vec![2.0, 1.0, 3.0]; 9];
        let gauc = Estimates::new(&[&alike]).gauc;
        for value in [gauc.low, gauc.value, gauc.high] {
            assert!((value - 0.5).abs() < 1e-12, "{gauc:?}");
        }
        // Of two users with 0 and 1, a draw has 0, 1/2 or 1, a quarter, half and quarter of the time.
        let gauc = Estimates::new(&[&[vec![0.0, 1.0], vec![1.0, 0.0]]]).gauc;
        assert_eq!((gauc.low, gauc.value, gauc.high), (0.0, 0.5, 1.0));
        // Of n users with 0 or 1 the standard error is 1/(2√n): 1.96 times 0.025 on each side.
        let many: Vec<Vec<f32>> = (0..400).map(|user| vec![(user % 2) as f32, 0.5]).collect();
        let gauc = Estimates::new(&[&many]).gauc;
        assert!((gauc.low - 0.451).abs() < 0.008 && (gauc.high - 0.549).abs() < 0.008, "{gauc:?}");
    }
}
