//! Histories in orders that are hard on the lists of channels: every score is exact but for the length of its axis, and the selection
//! is that of a plain sort.

use longseq::*;

use crate::case::Rules;
use crate::sample;
use crate::search::orders::{ORDERS, SIZES};

/// The channels of the candidate, one for each number of a row.
const CHANNELS: usize = 3;

/// The rows of a history: the channel of a behaviour is its position's, its score there one more than its rank, and half less elsewhere.
fn rows(ranks: &[usize]) -> Vec<[f32; CHANNELS]> {
    let row = |(i, &rank): (usize, &usize)| {
        let mut row = [rank as f32 + 0.5; CHANNELS];
        row[i % CHANNELS] += 0.5;
        row
    };
    ranks.iter().enumerate().map(row).collect()
}

/// The positions that each channel keeps of one history.
fn kept<B: Backend>(
    backend: &B,
    op: &InterestChannels,
    history: &[[f32; CHANNELS]],
) -> Result<Vec<Vec<u32>>> {
    let axes = [[1.0f32, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.5]];
    let (axes, rows) = (backend.upload(axes.as_flattened())?, backend.upload(history.as_flattened())?);
    let batch = backend.batch(&Jagged::from_lengths(&[history.len()])?, &Jagged::from_lengths(&[1])?)?;
    let slots = CHANNELS * op.top_k;
    let (mut positions, mut scores) = (backend.zeros::<u32>(slots)?, backend.zeros::<f32>(slots)?);
    let (mut counts, mut out) = (backend.zeros::<u32>(CHANNELS)?, backend.zeros::<f32>(CHANNELS * op.width)?);
    let kept = SelectionMut::new(
        backend.view_mut(&mut positions),
        backend.view_mut(&mut scores),
        backend.view_mut(&mut counts),
    );
    let inputs = InterestChannelsInputs::new(backend.view(&axes), backend.view(&rows));
    let outputs = InterestChannelsOutputs::new(backend.view_mut(&mut out)).with_kept(kept);
    backend.interest_channels_into(op, &batch, inputs, outputs)?;
    let (positions, counts) =
        (backend.download(backend.view(&positions))?, backend.download(backend.view(&counts))?);
    let lists = positions.chunks(op.top_k).zip(counts);
    Ok(lists.map(|(list, count)| list[..count as usize].to_vec()).collect())
}

pub(super) fn keeps_the_best_in_any_order<B: Backend>(backend: &B, rules: Rules) {
    for (length, top_k) in SIZES {
        for among in super::tests::AMONG {
            for (name, order) in ORDERS {
                // On a slow device a sample; of each form one order at least.
                if rules.slow && name != "falling" && !sample::has(&(length, name, format!("{among:?}"))) {
                    continue;
                }
                let ranks: Vec<usize> = (0..length).map(|i| order(i, length)).collect();
                let history = rows(&ranks);
                let op = InterestChannels::new(CHANNELS).with_channels(CHANNELS).with_top_k(top_k);
                let got = kept(backend, &op.with_among(among), &history).expect("a valid call");
                for (channel, got) in got.iter().enumerate() {
                    let mut expected: Vec<u32> = (0..length as u32).collect();
                    expected.sort_by(|&a, &b| {
                        history[b as usize][channel].total_cmp(&history[a as usize][channel])
                    });
                    if among == KeptAmong::All {
                        expected.truncate(top_k);
                    }
                    expected.retain(|&i| i as usize % CHANNELS == channel);
                    expected.truncate(top_k);
                    let case = format!("{among:?}, {name}, {length} behaviours, K = {top_k}");
                    assert!(*got == expected, "{case}, channel {channel}");
                }
            }
        }
    }
}
