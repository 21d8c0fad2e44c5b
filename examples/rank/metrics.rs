//! How well the held-out item was ranked.

/// Means over requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Quality {
    /// Share of requests that rank the held-out item among the first ten.
    pub(crate) hit_rate: f64,
    /// `1/log2(1 + rank)` within the first ten, 0 behind: NDCG with one relevant item.
    pub(crate) ndcg: f64,
    /// Share of negatives that rank behind the held-out item.
    pub(crate) auc: f64,
}

/// How many places count.
pub(crate) const PLACES: f64 = 10.0;

/// Of one request; the first score is the held-out item's. A negative with the same score counts as half ahead and
/// half behind, so constant scores are worth as much as a draw by lot.
pub(crate) fn quality(scores: &[f32]) -> Quality {
    let Some((held_out, negatives)) = scores.split_first() else {
        return Quality::default();
    };
    let count = |test: &dyn Fn(&f32) -> bool| negatives.iter().filter(|score| test(score)).count() as f64;
    let ahead = count(&|score| score > held_out) + 0.5 * count(&|score| score == held_out);
    let rank = 1.0 + ahead;
    let hit = rank <= PLACES;
    Quality {
        hit_rate: f64::from(u8::from(hit)),
        ndcg: if hit { 1.0 / (1.0 + rank).log2() } else { 0.0 },
        auc: if negatives.is_empty() { 0.5 } else { 1.0 - ahead / negatives.len() as f64 },
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
    fn a_third_place_is_worth_half_a_point_of_ndcg() {
        // Two of four negatives ahead: rank 3, 1/log2(4) = 1/2, half of the negatives behind.
        let quality = quality(&[0.5, 0.9, 0.1, 0.8, 0.2]);
        assert_eq!(quality, Quality { hit_rate: 1.0, ndcg: 0.5, auc: 0.5 });
    }

    #[test]
    fn the_tenth_place_is_a_hit_and_the_eleventh_is_none() {
        let with_ahead = |ahead: usize| {
            let negatives = (0..100).map(|i| if i < ahead { 2.0 } else { 0.0 });
            quality(&std::iter::once(1.0).chain(negatives).collect::<Vec<_>>())
        };
        assert_eq!(with_ahead(9).hit_rate, 1.0);
        assert!((with_ahead(9).ndcg - 1.0 / 11f64.log2()).abs() < 1e-12);
        assert_eq!(with_ahead(10), Quality { hit_rate: 0.0, ndcg: 0.0, auc: 0.9 });
        assert_eq!(with_ahead(0), Quality { hit_rate: 1.0, ndcg: 1.0, auc: 1.0 });
    }

    #[test]
    fn equal_scores_count_half() {
        assert_eq!(quality(&[1.0; 101]).auc, 0.5);
        assert_eq!(quality(&[1.0; 101]).hit_rate, 0.0);
        // Ranks 1 and 2 are shared: rank 1.5.
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
