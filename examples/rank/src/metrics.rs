//! Ranking quality of the held-out item.

/// Means over requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Quality {
    /// Share of requests that rank the held-out item in the top ten.
    pub(crate) hit_rate: f64,
    /// `1/log2(1 + rank)` in the top ten, 0 below it: NDCG with one relevant item.
    pub(crate) ndcg: f64,
    /// Share of negatives ranked below the held-out item.
    pub(crate) auc: f64,
}

/// The cut-off of HR and NDCG.
pub(crate) const CUTOFF: f64 = 10.0;

/// Quality of one request; the first score is the held-out item's. A tied negative counts half above and half below,
/// so constant scores get the same AUC as a random order. What cannot be compared, NaN, counts as above.
pub(crate) fn quality(scores: &[f32]) -> Quality {
    let Some((held_out, negatives)) = scores.split_first() else {
        return Quality::default();
    };
    let count = |test: &dyn Fn(&f32) -> bool| negatives.iter().filter(|score| test(score)).count() as f64;
    let not_below = negatives.len() as f64 - count(&|score| score < held_out);
    let above = not_below - 0.5 * count(&|score| score == held_out);
    let rank = 1.0 + above;
    let hit = rank <= CUTOFF;
    Quality {
        hit_rate: f64::from(u8::from(hit)),
        ndcg: if hit { 1.0 / (1.0 + rank).log2() } else { 0.0 },
        auc: if negatives.is_empty() { 0.5 } else { 1.0 - above / negatives.len() as f64 },
    }
}

/// The mean over requests.
pub(crate) fn mean(of: &[Quality]) -> Quality {
    let mean = |value: fn(&Quality) -> f64| of.iter().map(value).sum::<f64>() / of.len().max(1) as f64;
    Quality { hit_rate: mean(|q| q.hit_rate), ndcg: mean(|q| q.ndcg), auc: mean(|q| q.auc) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_3_has_an_ndcg_of_one_half() {
        // Two of four negatives score higher: rank 3, 1/log2(4) = 1/2, half of the negatives below.
        let quality = quality(&[0.5, 0.9, 0.1, 0.8, 0.2]);
        assert_eq!(quality, Quality { hit_rate: 1.0, ndcg: 0.5, auc: 0.5 });
    }

    #[test]
    fn scores_that_are_no_numbers_are_worth_nothing() {
        let worst = Quality { hit_rate: 0.0, ndcg: 0.0, auc: 0.0 };
        assert_eq!(quality(&[&[f32::NAN][..], &[0.0; 10]].concat()), worst);
        assert_eq!(quality(&[&[0.0][..], &[f32::NAN; 10]].concat()), worst);
    }

    #[test]
    fn rank_10_is_a_hit_and_rank_11_is_not() {
        let with_above = |above: usize| {
            let negatives = (0..100).map(|i| if i < above { 2.0 } else { 0.0 });
            quality(&std::iter::once(1.0).chain(negatives).collect::<Vec<_>>())
        };
        assert_eq!(with_above(9).hit_rate, 1.0);
        assert!((with_above(9).ndcg - 1.0 / 11f64.log2()).abs() < 1e-12);
        assert_eq!(with_above(10), Quality { hit_rate: 0.0, ndcg: 0.0, auc: 0.9 });
        assert_eq!(with_above(0), Quality { hit_rate: 1.0, ndcg: 1.0, auc: 1.0 });
    }

    #[test]
    fn equal_scores_count_half() {
        assert_eq!(quality(&[1.0; 101]).auc, 0.5);
        assert_eq!(quality(&[1.0; 101]).hit_rate, 0.0);
        // A tie for ranks 1 and 2: rank 1.5.
        assert_eq!(quality(&[1.0, 1.0]).ndcg, 1.0 / 2.5f64.log2());
    }

    #[test]
    fn means_are_over_requests() {
        let best = quality(&[1.0, 0.0]);
        let worst = Quality::default();
        assert_eq!(mean(&[best, worst]), Quality { hit_rate: 0.5, ndcg: 0.5, auc: 0.5 });
        assert_eq!(mean(&[]), Quality::default());
    }
}
