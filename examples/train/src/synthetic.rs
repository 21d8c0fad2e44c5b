//! A log with long-range interest whose right answer is known: a user clicks what was met long ago, in the older half of a history whose newer half
//! says nothing of it. Items have nothing in common, so a mean of embeddings, whose width is far below their number, cannot hold which of them it
//! is of; attention finds the one behaviour that matters.

use crate::estimates::Estimates;
use crate::model::{Engine, Model, Rates, Trainer};
use crate::protocol::Seeded;
use crate::samples::Sample;
use crate::systems::{Sizes, System};

const SIZES: Sizes = Sizes { items: 200, width: 8, history: LONGEST };
const SHORTEST: usize = 40;
const LONGEST: usize = 80;
/// Users in a step, and steps.
const USERS: usize = 64;
const STEPS: usize = 1000;
const RATES: Rates = Rates { dense: 0.005, tables: 0.02, decay: 0.0 };
/// Users of the test, who are new.
const TEST: usize = 500;

/// Users with two clicked candidates, from the older half of their histories, and two others, which they have not met.
fn sample(users: usize, random: &mut Seeded) -> Sample {
    let (mut sample, mut items) = (Sample::default(), (0..SIZES.items as u32).collect::<Vec<_>>());
    for _ in 0..users {
        random.shuffle(&mut items);
        let length = SHORTEST + random.below(LONGEST - SHORTEST + 1);
        let (history, others) = items.split_at(length);
        let first = random.below(length / 2);
        let second = (first + 1 + random.below(length / 2 - 1)) % (length / 2);
        let clicked = [(history[first], 1.0), (history[second], 1.0)];
        sample.push(history, &[clicked[0], (others[0], 0.0), clicked[1], (others[1], 0.0)]);
    }
    sample
}

/// AUC on new users of a system that is trained on this log.
fn auc(system: System) -> f64 {
    let model = Model::new(system, SIZES, None, 1).unwrap();
    let mut trainer = Trainer::new(model, Engine::Longseq, RATES).unwrap();
    let mut random = Seeded::new(11);
    for _ in 0..STEPS {
        trainer.step(&sample(USERS, &mut random)).unwrap();
    }
    let test = sample(TEST, &mut random);
    let scores = trainer.model.forward(&test, Engine::Longseq).unwrap().to_vec1::<f32>().unwrap();
    // A clicked candidate and one that was not, in turn.
    let pairs: Vec<Vec<f32>> = scores.chunks(2).map(<[f32]>::to_vec).collect();
    Estimates::new(&[&pairs]).auc.value
}

#[test]
fn mean_pooling_cannot_find_what_was_met_long_ago() {
    let auc = auc(System::Mean);
    assert!((0.5..0.7).contains(&auc), "{auc}");
}

#[test]
fn the_last_twenty_know_nothing_of_it() {
    let auc = auc(System::LastTwenty);
    assert!((0.45..0.6).contains(&auc), "{auc}");
}

/// What each system must reach; mean pooling is below 0.7.
const REACHED: f64 = 0.9;

#[test]
fn target_attention_finds_it() {
    let auc = auc(System::TargetAttention);
    assert!(auc > REACHED, "{auc}");
}

#[test]
fn din_finds_it() {
    let auc = auc(System::Din);
    assert!(auc > REACHED, "{auc}");
}

#[test]
fn sdim_finds_it() {
    let auc = auc(System::Sdim);
    assert!(auc > REACHED, "{auc}");
}

#[test]
fn dare_finds_it() {
    let auc = auc(System::Dare);
    assert!(auc > REACHED, "{auc}");
}

#[test]
fn tin_finds_it() {
    let auc = auc(System::Tin);
    assert!(auc > REACHED, "{auc}");
}
