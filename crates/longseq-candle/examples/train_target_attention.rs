//! Trains a small click model with target attention on a log whose rule is known: a user clicks items of the categories that make up the
//! older half of the history. Mean pooling of the newest behaviours cannot see that.
//!
//! `cargo run --release --example train_target_attention`

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, VarBuilder, VarMap, linear};
use longseq_candle::layers::TargetAttentionLayer;
use longseq_candle::longseq::{Bags, Lookup, Optimiser, TargetAttention};
use longseq_candle::{Batch, Longseq, LookupTensors, SparseTable, TableTensor};

const ITEMS: usize = 400;
const CATEGORIES: usize = 20;
const WIDTH: usize = 16;
const USERS: usize = 32;
const CANDIDATES: usize = 4;
const STEPS: usize = 150;

/// Numbers from 0 to below `bound` (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % bound as u64) as usize
    }
}

/// Some users' histories and candidates, and which candidates were clicked.
struct Sample {
    batch: Batch,
    history: Tensor,
    targets: Tensor,
    clicks: Tensor,
}

/// An item's category is its id modulo their number.
fn sample(longseq: &Longseq, random: &mut Random) -> Result<Sample> {
    let (mut history, mut targets, mut clicks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ends, mut target_ends) = (vec![0u32], vec![0u32]);
    for _ in 0..USERS {
        let liked: Vec<usize> = (0..3).map(|_| random.below(CATEGORIES)).collect();
        let item =
            |category: usize, random: &mut Random| category + CATEGORIES * random.below(ITEMS / CATEGORIES);
        let half = 10 + random.below(20);
        history.extend((0..half).map(|_| item(liked[random.below(3)], random) as u32));
        history.extend((0..half).map(|_| random.below(ITEMS) as u32));
        for candidate in 0..CANDIDATES {
            let category = if candidate % 2 == 0 { liked[random.below(3)] } else { random.below(CATEGORIES) };
            targets.push(item(category, random) as u32);
            clicks.push(f32::from(u8::from(liked.contains(&category))));
        }
        ends.push(history.len() as u32);
        target_ends.push(targets.len() as u32);
    }
    let (n, m) = (history.len(), targets.len());
    Ok(Sample {
        batch: longseq.batch(&ends, &target_ends)?,
        history: Tensor::from_vec(history, n, &Device::Cpu)?,
        targets: Tensor::from_vec(targets, m, &Device::Cpu)?,
        clicks: Tensor::from_vec(clicks, m, &Device::Cpu)?,
    })
}

struct Model {
    longseq: Longseq,
    items: SparseTable,
    attention: TargetAttentionLayer,
    first: Linear,
    last: Linear,
}

impl Model {
    fn new(longseq: Longseq, builder: VarBuilder<'_>) -> Result<Self> {
        let normal = candle_nn::Init::Randn { mean: 0.0, stdev: 0.2 };
        let items = builder.get_with_hints((ITEMS, WIDTH), "items", normal)?;
        let op = TargetAttention::new(WIDTH / 2).with_heads(2, 2);
        Ok(Self {
            longseq,
            // Shares the memory of the variable, so that it is saved with the others; its gradient is sparse.
            items: SparseTable::new(&items)?,
            attention: TargetAttentionLayer::new(WIDTH, op, builder.pp("attention"))?,
            first: linear(3 * WIDTH, 32, builder.pp("first"))?,
            last: linear(32, 1, builder.pp("last"))?,
        })
    }

    /// The log-odds of a click for each candidate.
    fn forward(&self, sample: &Sample) -> Result<Tensor> {
        let tables = [TableTensor::from(&self.items)];
        let rows =
            |ids| self.longseq.lookup(&Lookup::default(), Bags::Each, LookupTensors::new(ids, &tables));
        let (targets, history) = (rows(&sample.targets)?, rows(&sample.history)?);
        let interest = self.attention.forward(&self.longseq, &sample.batch, &targets, &history)?;
        let x = Tensor::cat(&[&targets, &interest, &targets.mul(&interest)?], 1)?;
        self.last.forward(&self.first.forward(&x)?.relu()?)?.squeeze(1)
    }
}

fn main() -> Result<()> {
    let longseq = Longseq::cpu(); // on a GPU: see the README
    let map = VarMap::new();
    let model = Model::new(longseq.clone(), VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    // The table's variable is among these, and gets no gradient: its steps are its own.
    let mut dense = AdamW::new_lr(map.all_vars(), 0.01)?;
    let mut random = Random(1);
    let (begin, mut sum) = (Instant::now(), 0.0);
    for step in 1..=STEPS {
        let sample = sample(&longseq, &mut random)?;
        let loss =
            candle_nn::loss::binary_cross_entropy_with_logit(&model.forward(&sample)?, &sample.clicks)?;
        dense.backward_step(&loss)?;
        let rows = model.items.step(&Optimiser::adam(0.01, step as u64))?;
        sum += loss.to_scalar::<f32>()?;
        if step % 15 == 0 {
            println!("step {step:3}: loss {:.4}, {rows} of {ITEMS} rows changed", sum / 15.0);
            sum = 0.0;
        }
    }
    let (mut right, mut of) = (0.0, 0);
    for _ in 0..10 {
        let sample = sample(&longseq, &mut random)?;
        let clicked = model.forward(&sample)?.gt(0.0)?.to_dtype(DType::F32)?;
        right += clicked.eq(&sample.clicks)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
        of += sample.clicks.elem_count();
    }
    println!(
        "right on new users: {:.1} %, {:.1} s",
        100.0 * right / of as f32,
        begin.elapsed().as_secs_f32()
    );
    Ok(())
}
