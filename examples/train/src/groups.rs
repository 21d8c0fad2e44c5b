//! Quality by how often training has met the held-out item.

use crate::metrics;
use crate::protocol::Request;

/// Names of the groups, and the most events of training that their items have.
pub(crate) const GROUPS: [(&str, u32); 3] = [("never", 0), ("1 to 5 times", 5), ("more often", u32::MAX)];

/// Users whose held-out items training has met about as often.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Group {
    pub(crate) users: usize,
    /// The mean of the users' own AUC; NaN without users.
    pub(crate) gauc: f64,
}

/// The group of an item that training has met so often.
fn group_of(met: u32) -> usize {
    GROUPS.iter().position(|&(_, most)| met <= most).unwrap_or(GROUPS.len() - 1)
}

/// The groups of requests, and last all users whose item training knows; the means over runs, each with the scores of all requests. `met` says
/// how often training has met each item.
pub(crate) fn groups(met: &[u32], requests: &[Request], runs: &[&[Vec<f32>]]) -> [Group; 4] {
    let (mut users, mut sums) = ([0usize; 4], [0.0; 4]);
    for scores in runs {
        for (request, scores) in requests.iter().zip(*scores) {
            let group = group_of(request.candidates.first().map_or(0, |&item| met[item as usize]));
            let auc = metrics::quality(scores).auc;
            let known = (group > 0).then_some(GROUPS.len());
            for place in [Some(group), known].into_iter().flatten() {
                users[place] += 1;
                sums[place] += auc;
            }
        }
    }
    let of = |place: usize| Group {
        users: users[place] / runs.len().max(1),
        gauc: sums[place] / users[place] as f64,
    };
    [of(0), of(1), of(2), of(3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_in_the_group_of_their_held_out_item() {
        let request = |item| Request { history: Vec::new(), candidates: vec![item, 0, 0] };
        let requests = [request(1), request(2), request(3), request(4)];
        let met = [9, 0, 1, 5, 6];
        let first = vec![vec![1.0, 2.0, 3.0], vec![2.0, 1.0, 3.0], vec![4.0, 2.0, 3.0], vec![1.0, 0.0, 3.0]];
        let second = vec![vec![3.0, 2.0, 1.0], vec![2.0, 1.0, 3.0], vec![4.0, 2.0, 3.0], vec![1.0, 0.0, 3.0]];
        let groups = groups(&met, &requests, &[&first, &second]);
        let group = |users, gauc| Group { users, gauc };
        assert_eq!(groups[..3], [group(1, 0.5), group(2, 0.75), group(1, 0.5)]);
        assert_eq!(groups[3].users, 3);
        assert!((groups[3].gauc - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_group_without_users_has_no_quality() {
        let request = Request { history: Vec::new(), candidates: vec![0, 1] };
        let scores = vec![vec![1.0, 0.0]];
        let groups = groups(&[7, 0], &[request], &[&scores]);
        assert_eq!((groups[0].users, groups[2].users), (0, 1));
        assert!(groups[0].gauc.is_nan() && groups[2].gauc == 1.0);
    }
}
